"""The networks: text-to-semantic transformer with LoRA, and the codec. Knows no command line and no training loop."""

from .adapters import adapter_shape, load_adapter
from .codec import Codec, CodecConfig
from .codec_loading import codec_config, load_codec, make_codec_config
from .dual_ar import DualAR, DualARConfig, DualAROutput
from .firefly import FireflyCodec, FireflyConfig
from .loading import load_dual_ar, read_config
from .lora import LoraConfig, install_lora, merge_lora

__all__ = [
    "Codec",
    "CodecConfig",
    "DualAR",
    "DualARConfig",
    "DualAROutput",
    "FireflyCodec",
    "FireflyConfig",
    "LoraConfig",
    "adapter_shape",
    "codec_config",
    "install_lora",
    "load_adapter",
    "load_codec",
    "load_dual_ar",
    "make_codec_config",
    "merge_lora",
    "read_config",
]
