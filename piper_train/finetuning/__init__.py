"""`finetune_tts.py --engine piper`: what is to be done, in which order."""
