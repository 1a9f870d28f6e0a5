"""The networks: text-to-semantic transformer with LoRA, and the codec. Knows no command line and no training loop."""

from .dual_ar import DualAR, DualARConfig, DualAROutput
from .firefly import FireflyCodec, FireflyConfig
from .loading import adapter_shape, codec_config, load_adapter, load_codec, load_dual_ar, read_config
from .lora import LoraConfig, install_lora, merge_lora

__all__ = [
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
    "merge_lora",
    "read_config",
]
