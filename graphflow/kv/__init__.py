"""Operation state: segments of KV in a local frame, bases, residuals of prefix paths, the store that shares them."""

from graphflow.kv.accounting import KVShape, StoreBytes, tensor_bytes
from graphflow.kv.bases import UnknownOperationError
from graphflow.kv.budget import BudgetError
from graphflow.kv.context import Context, own_bytes
from graphflow.kv.files import StoreFormatError, StoreLockedError, is_store
from graphflow.kv.manifest import StoreMismatchError
from graphflow.kv.memory import Allowed
from graphflow.kv.modes import Allocation, Anchor, Control, KVConfig, Scope, StateMode, Weighting
from graphflow.kv.plan import Plan
from graphflow.kv.prefix import PrefixTree
from graphflow.kv.residual import Moments
from graphflow.kv.rope import SUPPORTED_ROPE_TYPES, Rope, UnsupportedRopeError, check_rope_type
from graphflow.kv.segment import CodedSegment, Cut, EncodedSegment, Piece, Segment, SegmentKind, to_absolute, to_local
from graphflow.kv.snapshot import ModelIdentity
from graphflow.kv.store import OperationStore

__all__ = [
    "SUPPORTED_ROPE_TYPES",
    "Allocation",
    "Allowed",
    "Anchor",
    "BudgetError",
    "CodedSegment",
    "Context",
    "Control",
    "Cut",
    "EncodedSegment",
    "KVConfig",
    "KVShape",
    "ModelIdentity",
    "Moments",
    "OperationStore",
    "Piece",
    "Plan",
    "PrefixTree",
    "Rope",
    "Scope",
    "Segment",
    "SegmentKind",
    "StateMode",
    "StoreBytes",
    "StoreFormatError",
    "StoreLockedError",
    "StoreMismatchError",
    "UnknownOperationError",
    "UnsupportedRopeError",
    "Weighting",
    "check_rope_type",
    "is_store",
    "own_bytes",
    "tensor_bytes",
    "to_absolute",
    "to_local",
]
