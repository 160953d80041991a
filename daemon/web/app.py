"""The pages and what they do: each handler reads what it shows, and answers only through the daemon."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs, quote, urlencode

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, StrictUndefined
from msgspec.structs import replace
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from daemon import answers
from daemon.errors import HauswartError
from daemon.messages import Incident, KeepFeedback
from daemon.pages import gather, report
from daemon.pages.plots import figure
from daemon.pages.words import Words
from daemon.serving import trust_of
from daemon.settings import Settings
from daemon.store.reader import StoreReader
from daemon.web import data, lines, series
from daemon.web.guard import FIELD, App, Guard, Refusal, Visitor, check_token
from models import shelf
from models.bundle import TIERS
from models.taxonomy import FaultClass, Severity

HERE = Path(__file__).parent
FORM_BYTES = 64 << 10
SEARCH_MAX = 200
SNOOZE_S = 3600.0
SPANS = {"15m": 900.0, "1h": 3600.0, "6h": 21600.0, "24h": 86400.0}
LANGUAGE = "hauswart_lang"
VERDICTS: dict[str, Literal["good", "bad", "acknowledged", "edited"]] = {
    "good": "good",
    "bad": "bad",
    "acknowledge": "acknowledged",
    "edit": "edited",
}
_SAID = re.compile(r"[a-z_]{1,40}")
Page = Callable[[Request], Response]


def create_app(settings: Settings, password: str = "") -> App:
    """The guarded ASGI application."""
    pages = Pages(settings)
    get = {
        "/": pages.now,
        "/now": pages.now_part,
        "/incidents": pages.incidents,
        "/incidents/{id}": pages.incident,
        "/incidents/{id}/report": pages.report,
        "/metrics": pages.metrics,
        "/series": pages.series,
        "/templates": pages.templates,
        "/silences": pages.silences,
        "/models": pages.models,
        "/feedback": pages.feedback,
        "/language/{lang}": pages.language,
        "/style.css": pages.style,
    }
    post = {
        "/incidents/{id}/verdict": pages.judge,
        "/incidents/{id}/snooze": pages.snooze,
        "/silences/{id}/remove": pages.remove_silence,
        "/models/{tier}/rollback": pages.roll_back,
    }
    routes: list[Route | Mount] = [Route(path, _guarded(page), methods=["GET"]) for path, page in get.items()]
    routes += [Route(path, _answering(page), methods=["POST"]) for path, page in post.items()]
    static = StaticFiles(directory=HERE / "static")
    app = Starlette(routes=[*routes, Mount("/static", static)])
    return Guard(app, settings.web, password)


def _guarded(page: Page) -> Callable[[Request], Any]:
    """A page in a thread of its own; what is wrong with the store becomes a page, too."""

    async def endpoint(request: Request) -> Response:
        try:
            return await run_in_threadpool(page, request)
        except HauswartError as error:
            return _failed(error, 503)

    return endpoint


def _answering(action: Callable[[Request, dict[str, str]], Response]) -> Callable[[Request], Any]:
    """An answer: its form is read whole, its token checked, then it is done."""

    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > FORM_BYTES:
                return PlainTextResponse("The form is too large.\n", 413)
        fields = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=16)
        form = {name: values[0] for name, values in fields.items()}
        try:
            check_token(request.state.visitor, form.get(FIELD, ""))
            return await run_in_threadpool(action, request, form)
        except Refusal as refusal:
            return PlainTextResponse(f"{refusal.reason}\n", refusal.status)
        except HauswartError as error:
            return _failed(error, 409)

    return endpoint


def _failed(error: HauswartError, status: int) -> Response:
    hint = f"\n{error.hint}" if error.hint else ""
    return PlainTextResponse(f"{error}{hint}\n", status)


class Pages:
    """The handlers; they hold nothing but the settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._telemetry = settings.state / "telemetry"

    # --- looking ------------------------------------------------------------------------------------------

    def now(self, request: Request) -> Response:
        """The host in one glance."""
        return self._glance(request, "now.html")

    def now_part(self, request: Request) -> Response:
        """What of it changes, for the script that keeps it fresh."""
        return self._glance(request, "now_part.html")

    def _glance(self, request: Request, template: str) -> Response:
        words = self._words(request)
        with self._reader() as reader:
            found = data.glance(reader, self._settings, words.lang)
        return self._page(request, template, glance=found, names=data.GLANCE)

    def incidents(self, request: Request) -> Response:
        """History and search."""
        asked = request.query_params
        search = asked.get("q", "")[:SEARCH_MAX]
        fault = asked.get("class", "") if asked.get("class", "") in set(FaultClass) else ""
        severity = asked.get("severity", "") if asked.get("severity", "") in set(Severity) else ""
        words, at = self._words(request), time.time()
        days = min(3650, max(1, int(asked["days"][:6]))) if asked.get("days", "").isdecimal() else 7
        with self._reader() as reader:
            found = reader.incidents(
                since=at - days * 86400.0, fault_class=fault or None, severity=severity or None,
                search=search, limit=200,
            )  # fmt: skip
            rows = [data.row(reader, one, words.lang) for one in found if one.state != "merged"]
        faults = [one.value for one in FaultClass if not one.benign]
        chosen = {"q": search, "class": fault, "severity": severity, "days": days}
        return self._page(
            request, "incidents.html", rows=rows, chosen=chosen, faults=faults, severities=list(Severity)
        )

    def incident(self, request: Request) -> Response:
        """Everything about one incident."""
        words = self._words(request)
        with self._reader() as reader:
            found = self._find(reader, request)
            if found is None:
                return self._missing(request)
            if found.id != request.path_params["id"]:
                return RedirectResponse(f"/incidents/{found.id}")
            told = gather.tell(reader, self._telemetry, found, words, alone=True)
            others = data.alike(reader, found, words.lang)
            quieted = next((one for one in reader.silences() if one.id == found.quieted), None)
        return self._page(
            request, "one_incident.html", one=told, others=others, quieted=quieted, level=2,
            plot=lambda curve: figure(curve, words),
        )  # fmt: skip

    def report(self, request: Request) -> Response:
        """The incident as a file to attach."""
        words, at = self._words(request), time.time()
        with self._reader() as reader:
            found = self._find(reader, request)
            if found is None:
                return self._missing(request)
            told = gather.tell(reader, self._telemetry, found, words, alone=True)
        period = gather.Period(found.opened_at, found.closed_at or at, [told], 0)
        text = report.page(period, words, host=_host(), at=at)
        name = f'attachment; filename="hauswart-{found.id}.html"'
        return HTMLResponse(text, headers={"content-disposition": name})

    def metrics(self, request: Request) -> Response:
        """The metrics explorer; the curve comes by itself."""
        names = series.names(self._telemetry)
        wanted = request.query_params.get("name", "")
        name = wanted if wanted in names else next((one for one in data.GLANCE if one in names), "")
        span = request.query_params.get("span", "")
        return self._page(
            request, "metrics.html", names=names, name=name, spans=list(SPANS),
            span=span if span in SPANS else "1h",
        )  # fmt: skip

    def series(self, request: Request) -> Response:
        """One metric's course as JSON."""
        span = SPANS.get(request.query_params.get("span", ""), SPANS["1h"])
        at = time.time()
        found = series.course(self._telemetry, request.query_params.get("name", ""), at - span, at)
        return JSONResponse(found._asdict())

    def templates(self, request: Request) -> Response:
        """What the log says lately that it did not say before, seldom, or no more."""
        at = time.time()
        return self._page(
            request, "templates.html", found=lines.overview(self._telemetry, at - SPANS["24h"], at), at=at
        )

    def silences(self, request: Request) -> Response:
        """What is kept quiet, by the operator or by habit."""
        with self._reader() as reader:
            found = data.silences(reader, time.time())
        return self._page(request, "silences.html", found=found)

    def models(self, request: Request) -> Response:
        """What serves, how good it is, and what it cost to make it small."""
        return self._page(
            request,
            "models.html",
            rows=data.models_of(self._settings),
            cards=_cards,
            shrinking=data.shrinking,
        )

    def feedback(self, request: Request) -> Response:
        """The verdicts given."""
        with self._reader() as reader:
            found = data.feedback(reader)
        return self._page(request, "feedback.html", found=found)

    def language(self, request: Request) -> Response:
        """Speak another language from now on."""
        lang = "de" if request.path_params["lang"] == "de" else "en"
        back = _local(request.query_params.get("back", "/"))
        answer = RedirectResponse(back, 303)
        answer.set_cookie(LANGUAGE, lang, max_age=365 * 86400, samesite="strict", httponly=True)
        return answer

    def style(self, request: Request) -> Response:  # noqa: ARG002 - as every page
        """The style that reports have, too."""
        return Response((report.TEMPLATES / "style.css").read_text("utf-8"), media_type="text/css")

    # --- answering ----------------------------------------------------------------------------------------

    def judge(self, request: Request, form: dict[str, str]) -> Response:
        """Keep a verdict."""
        verdict = VERDICTS.get(form.get("verdict", ""))
        lang = self._words(request).lang
        with self._reader() as reader:
            found = self._find(reader, request)
            advice = reader.advice(found.id, lang) if found else None
        if found is None or verdict is None:
            return self._missing(request)
        original, improved = (
            (advice.text if advice else ""),
            form.get("improved", "").replace("\r\n", "\n").strip(),
        )
        if verdict == "edited" and improved in {"", original.strip()}:
            return self._back(found, "unchanged")
        given = KeepFeedback(
            incident_id=found.id,
            verdict=verdict,
            user=_visitor(request).name,
            at=time.time(),
            lang=lang,
            original=original if verdict == "edited" else "",
            improved=improved if verdict == "edited" else "",
            comment=form.get("comment", "")[:2000].strip(),
        )
        followed = answers.keep_verdict(self._settings, found, given)
        return self._back(found, "kept_silent" if followed.made else "kept")

    def snooze(self, request: Request, form: dict[str, str]) -> Response:
        """No notification of this class and culprit for an hour, a day or a week."""
        with self._reader() as reader:
            found = self._find(reader, request)
        if found is None:
            return self._missing(request)
        hours = min(720, max(1, int(form["hours"][:6]))) if form.get("hours", "").isdecimal() else 1
        at, name = time.time(), _visitor(request).name
        kept = answers.new_snooze(found, start=at, end=at + hours * SNOOZE_S, user=name)
        answers.keep(self._settings, kept)
        return self._back(found, "snoozed")

    def remove_silence(self, request: Request, form: dict[str, str]) -> Response:  # noqa: ARG002 - as all
        """End a silence."""
        with self._reader() as reader:
            known = [one for one in reader.silences() if one.id == request.path_params["id"]]
        for one in known:
            answers.keep(self._settings, replace(one, user=_visitor(request).name, cancelled=True))
        return RedirectResponse("/silences?said=" + ("silence_ended" if known else "gone"), 303)

    def roll_back(self, request: Request, form: dict[str, str]) -> Response:  # noqa: ARG002 - as all
        """Have the bundle before serve again."""
        tier = request.path_params["tier"]
        if tier not in TIERS:
            return self._missing(request)
        shelf.rollback(tier, self._settings.state, trust_of(self._settings.models))
        return RedirectResponse("/models?said=rolled_back", 303)

    # --- what all need ------------------------------------------------------------------------------------

    def _reader(self) -> StoreReader:
        return StoreReader(self._settings.store)

    def _find(self, reader: StoreReader, request: Request) -> Incident | None:
        return reader.incident(str(request.path_params["id"])[:32])

    def _words(self, request: Request) -> Words:
        wanted = request.cookies.get(LANGUAGE, "")
        return Words(wanted if wanted in {"en", "de"} else self._settings.language)

    def _back(self, incident: Incident, said: str) -> Response:
        return RedirectResponse(f"/incidents/{quote(incident.id)}?{urlencode({'said': said})}", 303)

    def _missing(self, request: Request) -> Response:
        return self._page(request, "missing.html", status=404)

    def _page(self, request: Request, template: str, status: int = 200, **values: Any) -> Response:
        said = request.query_params.get("said", "")
        shown = {
            "w": self._words(request), "visitor": _visitor(request), "path": request.url.path,
            "query": request.url.query, "host": _host(), "said": said if _SAID.fullmatch(said) else "",
            "field": FIELD, **values,
        }  # fmt: skip
        return HTMLResponse(_environment().get_template(template).render(shown), status)


def _visitor(request: Request) -> Visitor:
    visitor: Visitor = request.state.visitor
    return visitor


def _local(path: str) -> str:
    """A path of this page's own, whatever was asked for."""
    return path if re.fullmatch(r"/(?!/)[\w/?=&.%+-]{0,300}", path) else "/"


@cache
def _host() -> str:
    import socket  # noqa: PLC0415 - for a name only

    return socket.gethostname()


def _cards(directory: str) -> str:
    """A bundle's card, as it was written."""
    try:
        return (Path(directory) / "card.md").read_text("utf-8")[:20_000]
    except (OSError, UnicodeDecodeError):
        return ""


@cache
def _environment() -> Environment:
    loader = ChoiceLoader([FileSystemLoader(HERE / "templates"), FileSystemLoader(report.TEMPLATES)])
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
