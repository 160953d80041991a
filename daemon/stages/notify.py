"""The notify stage: tells the operator through hook and targets, and serves the Prometheus endpoint.

Runs only if one of them is configured; sleeps in between, and opens the store when there is a reason to.
"""

from __future__ import annotations

import socket
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

import msgspec

from daemon.bus import LOOK_EVERY_S, RecordsClient, WakeListener, Wire
from daemon.errors import NO_INCIDENT, REFUSED, HauswartError
from daemon.message_ids import MessageId
from daemon.messages import Advice, KeepDelivery, KeepFinding
from daemon.notify.channels import Channel, Letter, Outcome, Post, channels_of, child_environment, letter
from daemon.notify.planner import HOUR_S, MISSED_S, Notice, Planner, State, moments
from daemon.prometheus import Family, MetricsServer, exposition, families_of
from daemon.settings import Settings
from daemon.stages.health import find_crash
from daemon.stages.life import Life, Report
from daemon.status import STAGES, read_status
from daemon.store.documents import incident_document
from daemon.store.reader import StoreReader

KEEP_TIMEOUT_S = 2.0
KEEP_RETRY_S = 5.0
PAUSE_S = 0.25  # between two looks, so that a burst of revisions is read once
RENDER_S = 1.0  # scrapes within a second get the same text
STOP_S = 3.0
MAX_UNKEPT = 1024
OLD_NEWS_S = 24 * HOUR_S + MISSED_S


class NotifyStage:
    """Looks into the store when woken, plans, posts, and has the middle tier keep what was delivered."""

    def __init__(
        self,
        life: Life,
        listener: WakeListener,
        client: RecordsClient,
        reader: StoreReader,
        channels: Sequence[Channel],
        *,
        host: str,
    ) -> None:
        self._life, self._listener, self._client, self._reader = life, listener, client, reader
        self._settings = life.settings.notify
        self._channels = {channel.name: channel for channel in channels}
        self._planner: Planner | None = None
        self._post = Post(self._delivered, life.tell.warning)
        self._host = host
        self._unkept: list[KeepDelivery | KeepFinding] = []
        self._keep_s = self._look_s = self._looked_s = 0.0
        self._counts: Counter[str] = Counter()
        self._trouble = ""
        self._rendered = (float("-inf"), "")
        self._server: MetricsServer | None = None
        self._collector = next((one for one in channels if one.name == "otlp"), None)
        self._push_s = 0.0  # when to send metrics next
        self._taken = True  # whether the collector took the last ones
        if life.died is not None:
            self._unkept.append(KeepFinding(find_crash(life.stage, life.died)))
        life.listen(listener.socket, wanted=True)
        life.report = self._report

    def serve(self, listen: str) -> None:
        """Serve the Prometheus endpoint too; raises ConfigError."""
        self._server = MetricsServer(listen, self._render, self._life.poller)

    def run(self) -> None:
        """Work until stopped."""
        if self._life.died is not None:
            self._life.tell.warning("the last notify stage died without stopping", MessageId.STAGE_DIED)
        self._life.ready("waiting for incidents" if self._channels else "serving metrics")
        while not self._life.stopping:
            self.step()
        self._life.announce_stop()
        until_s = time.monotonic() + STOP_S
        while self._post.step(time.monotonic()) == 0.2 and time.monotonic() < until_s:
            time.sleep(0.05)
        self._keep_all()
        self._post.close()
        if self._server is not None:
            self._server.close()

    def step(self) -> None:
        """One round: wait, serve, look if it is time, post, keep."""
        ready = self._life.wait(self._wait_s())
        now_s = time.monotonic()
        if self._server is not None:
            for source in ready:
                if isinstance(source, int):
                    self._server.handle(source, now_s)
            self._server.expire(now_s)
        if self._listener.drain():
            self._look_s = min(self._look_s, max(now_s, self._looked_s + PAUSE_S))
        if self._channels and now_s >= self._look_s and not self._life.stopping:
            self._looked_s = now_s
            self._attempt(self._look)
        if self._collector is not None and now_s >= self._push_s:
            self._push(self._collector, now_s)
        self._post.step(time.monotonic())
        if self._unkept and now_s >= self._keep_s:
            self._keep_all()

    def _wait_s(self) -> float:
        now_s = time.monotonic()
        posting_s = self._post.step(now_s)
        waits = [self._look_s - now_s if self._channels else LOOK_EVERY_S]
        waits += [] if posting_s is None else [posting_s]
        waits += [self._keep_s - now_s] if self._unkept else []
        waits += [self._push_s - now_s] if self._collector is not None else []
        waits += [1.0] if self._server is not None and self._server.busy else []
        return max(0.0, min(waits))

    def _attempt(self, work: Callable[[], None]) -> None:
        """A store that cannot be read is said once and tried again."""
        self._look_s = time.monotonic() + LOOK_EVERY_S
        try:
            work()
        except HauswartError as error:
            if str(error) != self._trouble:
                self._life.tell.warning(str(error))
            self._trouble = str(error)
            self._counts["failed"] += 1
        else:
            self._trouble = ""

    def _look(self) -> None:
        wall, mono = time.time(), time.monotonic()
        reader, lang = self._reader, self._settings.language
        if self._planner is None:
            self._planner = Planner(
                self._settings,
                list(self._channels),
                [name for name, channel in self._channels.items() if channel.fires],
            )
            sent = moments(reader.deliveries(since=wall - HOUR_S))
            self._planner.remember((wall - moment for moment in sent), mono)
        states = [
            State(one.incident, one.acknowledged, one.deliveries)
            for one in reader.needing_notice(wall - OLD_NEWS_S)
        ]
        advice = {one.incident.id: reader.sound_advice(one.incident.id, lang) for one in states}
        advised = {name for name, said in advice.items() if said}
        plan = self._planner.plan(states, reader.sound_silences(wall), advised, mono=mono, wall=wall)
        for notice in plan.notices:
            self._send(notice, advice[notice.incident.id])
        if plan.digest:
            self._send_digest(plan.digest)
        if plan.look_in_s is not None:
            self._look_s = min(self._look_s, mono + max(plan.look_in_s, PAUSE_S))

    def _send(self, notice: Notice, advice: Advice | None) -> None:
        from daemon.notify.wording import compose  # noqa: PLC0415  # the titles are read with the first notice

        incident = notice.incident
        message = compose(notice, advice, self._settings.language, self._host)
        document = incident_document(incident, advice) | {
            "notice": {"reason": notice.reason, "title": message.title, "text": message.body}
        }
        facts = {
            "reason": notice.reason,
            "incident": incident.id,
            "state": incident.state,
            "fault_class": incident.fault_class.value,
            "culprit": incident.culprits[0].name if incident.culprits else "",
        }
        for name in notice.channels:
            one = letter(
                self._channels[name],
                [(incident.id, incident.revision)],
                document,
                title=message.title,
                body=message.body,
                severity=incident.severity.value,
                facts=facts,
            )
            self._post.add(one, time.monotonic())
        self._counts[f"notices/{notice.reason}"] += 1

    def _send_digest(self, notices: Sequence[Notice]) -> None:
        for name, channel in self._channels.items():
            mine = [notice for notice in notices if name in notice.channels]
            if mine:
                self._post.add(self._digest(channel, mine), time.monotonic())
        self._counts["digests"] += 1

    def _digest(self, channel: Channel, notices: Sequence[Notice]) -> Letter:
        from daemon.notify.wording import compose_digest, worst  # noqa: PLC0415  # see _send

        def without(newer: Collection[str]) -> Letter:
            return self._digest(channel, [one for one in notices if one.incident.id not in newer])

        message = compose_digest(notices, self._settings.language, self._host)
        documents = [incident_document(notice.incident, None) for notice in notices]
        one = letter(
            channel,
            [(notice.incident.id, notice.incident.revision) for notice in notices],
            {"schema": 1, "digest": documents, "notice": {"reason": "digest", "title": message.title}},
            title=message.title,
            body=message.body,
            severity=worst([notice.incident for notice in notices]),
            facts={"reason": "digest", "incident": "", "state": "", "fault_class": "", "culprit": ""},
        )
        return one._replace(without=without)

    def _delivered(self, one: Letter, outcome: Outcome) -> None:
        if not one.about:
            self._pushed(one.channel.name, outcome)
            return
        at, name = time.time(), one.channel.name
        self._counts["delivered" if outcome.ok else "undelivered"] += 1
        if not outcome.ok:
            self._life.tell.error(
                f"notification through {name} failed for good: {outcome.error}", MessageId.NOTIFICATION_FAILED
            )
        elif outcome.output:
            self._life.tell.info(f"{name} says: {outcome.output[:500]}")
        for incident_id, revision in one.about:
            self._unkept.append(
                KeepDelivery(incident_id, revision, name, outcome.ok, at, outcome.error[:500])
            )
        del self._unkept[:-MAX_UNKEPT]

    def _pushed(self, name: str, outcome: Outcome) -> None:
        """Count a push of metrics; say when nobody takes them any more, and when somebody does again."""
        self._counts["pushed" if outcome.ok else "unpushed"] += 1
        if outcome.ok == self._taken:
            return
        self._taken = outcome.ok
        if outcome.ok:
            self._life.tell.info(f"{name}: the collector takes metrics again")
        else:
            self._life.tell.error(f"{name}: {outcome.error}", MessageId.NOTIFICATION_FAILED)

    def _keep_all(self) -> None:
        """Have the middle tier keep what was delivered; what it refuses (a purged incident) is let go."""
        while self._unkept:
            try:
                self._client.keep(self._unkept[0], KEEP_TIMEOUT_S)
            except HauswartError as error:
                if NO_INCIDENT not in str(error):
                    if REFUSED in str(error):  # the others need not wait for it
                        self._unkept.append(self._unkept.pop(0))
                    self._keep_s = time.monotonic() + KEEP_RETRY_S
                    return
                self._counts["deliveries_refused"] += 1
            del self._unkept[0]

    def _render(self) -> str:
        now_s = time.monotonic()
        if now_s - self._rendered[0] >= RENDER_S:
            self._rendered = (now_s, self._exposition())
        return self._rendered[1]

    def _push(self, collector: Channel, now_s: float) -> None:
        """Send the metrics; what is still on its way to the collector is overtaken."""
        self._push_s = now_s + self._life.settings.metrics.otlp_interval_s
        request = {"url": collector.url, "families": self._families()}
        channel = replace(collector, name="otlp-metrics")
        self._post.add(Letter(channel, (), msgspec.json.encode(request), child_environment()), now_s)

    def _exposition(self) -> str:
        return exposition(self._families())

    def _families(self) -> list[Family]:
        statuses = [one for stage in STAGES if (one := read_status(self._life.runtime, stage)) is not None]
        try:
            counts = self._reader.open_counts(), self._reader.opened_counts()
        except HauswartError as error:
            self._trouble = str(error)
            self._counts["failed"] += 1
            counts = {}, {}
        return families_of(statuses, *counts, wall=time.time())

    def _report(self) -> Report:
        served = {} if self._server is None else {f"http/{k}": n for k, n in self._server.counters.items()}
        waiting = {
            "unkept": len(self._unkept),
            "dropped": self._post.dropped,
            "damaged": self._reader.damaged,
        }
        return Report(
            text=self._trouble or ("waiting for incidents" if self._channels else "serving metrics"),
            drops={"wake": dict(self._listener.drops), "records": dict(self._client.drops)},
            counters=dict(self._counts) | served | waiting,
        )


def run(settings: Settings) -> None:
    """Be the notify stage until stopped."""
    channels = channels_of(settings.notify, settings.metrics.otlp)
    life = Life("notify", settings)
    if not channels and not settings.metrics.listen:
        life.ready("nothing to do: no hook, target or endpoint is configured; start it once one is")
        life.end()
        return
    wire = Wire(life.runtime)
    try:
        with StoreReader(settings.store) as reader:
            client = RecordsClient(life.runtime, wire)
            stage = NotifyStage(life, WakeListener(wire), client, reader, channels, host=socket.gethostname())
            if settings.metrics.listen:
                stage.serve(settings.metrics.listen)
            stage.run()
    finally:
        wire.close()
    life.end()
