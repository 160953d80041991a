"""The kinds of messages that the journal knows hauswart by: one MESSAGE_ID each, for good.

`units/hauswart.catalog` (and `.de.catalog`) explains each of them to `journalctl -x`; journald is told by
`daemon.journal`. An id is drawn once (`journalctl --new-id128`) and never used for anything else.
"""

from __future__ import annotations

from enum import StrEnum


class MessageId(StrEnum):
    """The ids, by what the message says."""

    INCIDENT_OPENED = "6ea5d373df8a4535aace25c955c2a870"
    INCIDENT_UPDATED = "832dcf99f0d64b83b8df4833053c5498"
    INCIDENT_CLOSED = "435acb4a491b416b8b192756c93f49da"
    INCIDENT_MERGED = "262e15096fd94a5e9ef47e3d0a80e05f"
    ADVICE_GIVEN = "e8d99e0d4c2b43c1bbd3b60eef3dca27"
    ADVICE_MISSING = "c396c47831114375be7d884ca3654e89"
    STAGE_READY = "4cb28609f86c4c609276bb4d4a3bad60"
    STAGE_DIED = "4f498b78ca5d41dc997d68951a6153a2"
    STAGE_FAILED = "5878d87a2dff4effaee2da166da25478"
    STAGE_SILENT = "bee543f9ded84cc08ac89ba0e10a0ecb"
    STAGE_HEARD = "eb1e947ef196485da29138707ab74076"
    STAGE_RELOADING = "d219803170f147e28b949334bed4cd56"
    MODEL_FELL_BACK = "ef90680c1c4b4b8d87c9f1b2d6c4ef55"
    SERVED_ASKED = "e53d53d4987e4ca4a71ec9e8fb46027b"
    BUNDLE_REFUSED = "f22f07b42ce44ac99f9ec3fc7d38c457"
    BUNDLE_PROMOTED = "ba8613da0f71431baeaea3c4a4e15eff"
    BUNDLE_ROLLED_BACK = "8cda7031bac64f96889244efae2c499f"
    CANDIDATE_LOST = "46900883a8e64ee2bacd848dc0f54c29"
    STORE_BLOCKED = "20b590b626264ec7bd2d4b64ce1d237c"
    STORE_DAMAGED = "d7c832ba7ec448c29838f7b34856c31f"
    SOURCE_ABSENT = "b645ffd9d1d74746a888e99d3137e86f"
    SOURCE_FAILED = "a8a0efaa012644cfb3e04f429cc85e4e"
    NOTIFICATION_FAILED = "7bc1a3d35a164ab1b23f905df0e1a63e"
