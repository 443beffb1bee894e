"""Events of one user -> one unit vector, moved in constant time by each event."""

from encoder.config import EncoderConfig
from encoder.inference import UserEncoder, load_encoder

__all__ = ["EncoderConfig", "UserEncoder", "load_encoder"]
