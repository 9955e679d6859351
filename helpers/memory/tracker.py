"""Watches every tensor operation and adds up the storages that are alive. Needs torch."""

from __future__ import annotations

import weakref

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

CUDA_BLOCK = 512  # bytes; CUDA's allocator hands out multiples of it

# What bitsandbytes' AdamW holds in its CPU kernel, out of the tracker's sight, in bytes for each element it updates:
# two states, the gradient, a square root and a quotient in fp32, and of weights in half precision a copy in fp32. Its
# CUDA kernel holds nothing.
_CPU_WORKSPACE = {"bitsandbytes.optimizer_update_8bit_blockwise.default": {4: 20, 2: 24}}

# Where autograd adds up in place, unless a mode watches: two gradients, and what `gather` picked
_IN_PLACE_UNLESS_WATCHED = (torch.ops.aten.add.Tensor, torch.ops.aten.scatter_add.default)


def _storage_of(tensor):
    try:
        return tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):  # a sparse or opaque tensor has none
        return None


class _Storage:
    """A storage that is alive: its bytes, as far as they are counted, and what it is for."""

    def __init__(self, reference):
        self.reference, self.size, self.kind = reference, 0, None


class Tracker(TorchDispatchMode):
    """Within `with tracker:` it follows all storages; `peak` is the most bytes at once, `parts` what they were.

    Args:
        existing: tensors from before. When the run first touches one, it turns out to have counted from the start.
        cuda: count as CUDA's allocator and kernels do.
    """

    def __init__(self, existing=(), cuda: bool = False):
        super().__init__()
        self.cuda = cuda
        self.alive = {}  # id of a storage: _Storage
        self.current, self.kinds = 0, {}  # bytes alive, and of each kind
        self.peak, self.parts = 0, {}  # the same two, at the peak
        storages = [storage for storage in map(_storage_of, existing) if storage is not None]
        self.existing = {id(storage): weakref.ref(storage) for storage in storages}

    def add(self, tree, kind: str | None = None) -> None:
        """Counts the storages of all tensors in `tree` that are not counted yet; names their `kind`."""
        for tensor in tree_iter(tree):
            storage = _storage_of(tensor) if isinstance(tensor, torch.Tensor) else None
            if storage is not None:
                self._count(storage, kind)
        if self.current > self.peak:
            self.start_phase()

    def _count(self, storage, kind: str | None) -> None:
        round_to = CUDA_BLOCK if self.cuda else 1
        key, size = id(storage), -(-storage.nbytes() // round_to) * round_to
        if key not in self.alive:
            self.alive[key] = _Storage(weakref.ref(storage, lambda _: self.remove(key)))
            before = self.existing.pop(key, None)
            if before is not None and before() is storage:
                self.peak += size
        entry = self.alive[key]
        if entry.size != size or (kind and kind != entry.kind):  # new, resized in place, or its kind is known now
            self.current += size - entry.size
            self.kinds[entry.kind] = self.kinds.get(entry.kind, 0) - entry.size
            entry.size, entry.kind = size, kind or entry.kind
            self.kinds[entry.kind] = self.kinds.get(entry.kind, 0) + size

    def start_phase(self, workspace: int = 0) -> None:
        """Forgets the peak so far: the next one is looked for from here."""
        self.peak, self.parts = self.current + workspace, dict(self.kinds)
        self.parts[None] = self.parts.get(None, 0) + workspace

    def remove(self, key: int) -> None:
        """The storage with this id is gone."""
        if key in self.alive:
            entry = self.alive.pop(key)
            self.current -= entry.size
            self.kinds[entry.kind] = self.kinds.get(entry.kind, 0) - entry.size

    def _reuse(self, tensor) -> None:
        """Lets go of a gradient to which autograd adds: in place, unless a mode like this one watches."""
        storage = _storage_of(tensor)
        last = torch._C._storage_Use_Count(storage._cdata) == 2  # the tensor's own reference, and ours
        if last and torch.ops.aten.is_non_overlapping_and_dense(tensor) and id(storage) in self.alive:
            self.remove(id(storage))

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        self.add((arguments, keywords))
        if not self.cuda and (held := _CPU_WORKSPACE.get(str(function))):
            workspace = held[arguments[2].element_size()] * arguments[2].numel()  # of the parameter
            if self.current + workspace > self.peak:
                self.start_phase(workspace)
        result = function(*arguments, **(keywords or {}))
        summing = torch._C._current_graph_task_id() >= 0 and not torch.is_grad_enabled()  # within backward()
        if summing and function in _IN_PLACE_UNLESS_WATCHED and result.shape == arguments[0].shape:
            self._reuse(arguments[0])
        self.add(result)
        return result


class Touched(TorchFunctionMode):
    """Within `with touched:` it notes which of the tensors from before take part; `size` is their bytes together.

    It looks at what Python calls, parameters and optimizer state among it, and leaves autograd as it is: unlike the
    tracker it does not change what a GPU's allocator sees.
    """

    def __init__(self, existing):
        super().__init__()
        self.size, self.existing = 0, {}
        for storage in (_storage_of(tensor) for tensor in with_gradients(existing)):
            if storage is not None:
                self.existing[id(storage)] = weakref.ref(storage)

    def _look(self, tree) -> None:
        for tensor in tree_iter(tree):
            storage = _storage_of(tensor) if self.existing and isinstance(tensor, torch.Tensor) else None
            if storage is not None and (before := self.existing.pop(id(storage), None)) and before() is storage:
                self.size += -(-storage.nbytes() // CUDA_BLOCK) * CUDA_BLOCK

    def __torch_function__(self, function, types, arguments=(), keywords=None):
        result = function(*arguments, **(keywords or {}))
        self._look((arguments, keywords, result))
        return result


def with_gradients(tensors):
    """The tensors, each followed by its gradient if it is a leaf that has one: nothing else may refer to that."""
    for tensor in tensors:
        yield tensor
        if tensor.is_leaf and tensor.grad is not None:
            yield tensor.grad
