"""Which tests may run side by side (`pytest -n 2 --dist loadgroup`): files may, if they leave the machine alone.

A file's tests stay together, as they share what they set up. All files with a test that starts units, injects
faults or measures this machine are one group, so that none of them meets another one's doing.
"""

import pytest

THE_MACHINES = ("lab", "slow")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group."""
    apart = {item.path for item in items if any(map(item.get_closest_marker, THE_MACHINES))}
    for item in items:
        item.add_marker(pytest.mark.xdist_group("machine" if item.path in apart else item.path.name))
