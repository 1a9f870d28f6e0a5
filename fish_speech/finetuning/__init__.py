"""What finetune_tts.py decides: whether a request makes sense, which stages it needs, where training starts."""
