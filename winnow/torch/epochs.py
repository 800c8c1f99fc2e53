"""The number of an epoch, which the workers of a loader share with the process that sets it."""

import torch


class EpochNumber:
    """An integer in shared memory, so that workers that outlive an epoch (`persistent_workers`) see the next one."""

    def __init__(self, number: int = 0) -> None:
        self._number = torch.tensor(number, dtype=torch.int64)
        self._number.share_memory_()  # type: ignore[no-untyped-call]

    def get(self) -> int:
        """The number."""
        return int(self._number)

    def set(self, number: int) -> None:
        """Change it."""
        self._number.fill_(number)
