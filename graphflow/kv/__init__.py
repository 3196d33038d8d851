"""Operation state: segments of KV in a local frame, bases, residuals of prefix paths, the store that shares them."""

from graphflow.kv.accounting import KVShape, StoreBytes, tensor_bytes
from graphflow.kv.modes import KVConfig, Scope, StateMode
from graphflow.kv.residual import Moments
from graphflow.kv.rope import SUPPORTED_ROPE_TYPES, Rope, UnsupportedRopeError, check_rope_type
from graphflow.kv.segment import (
    Context,
    EncodedSegment,
    Piece,
    Segment,
    SegmentKind,
    own_bytes,
    to_absolute,
    to_local,
)
from graphflow.kv.store import OperationStore, Plan, UnknownOperationError

__all__ = [
    "SUPPORTED_ROPE_TYPES",
    "Context",
    "EncodedSegment",
    "KVConfig",
    "KVShape",
    "Moments",
    "OperationStore",
    "Piece",
    "Plan",
    "Rope",
    "Scope",
    "Segment",
    "SegmentKind",
    "StateMode",
    "StoreBytes",
    "UnknownOperationError",
    "UnsupportedRopeError",
    "check_rope_type",
    "own_bytes",
    "tensor_bytes",
    "to_absolute",
    "to_local",
]
