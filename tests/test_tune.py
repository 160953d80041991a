"""The search for sampling parameters, against real HTTP servers: scripted ones, and llama.cpp."""

from __future__ import annotations

import io
import json
import random
import socket
import tomllib

import pytest
from rich.console import Console

from daemon.command.app import main
from daemon.errors import ChatError, ConfigError
from tests.bench.tune import WORDS as SURFACE_WORDS
from tests.bench.tune import quality, scripted
from tests.fixtures.chat import Reply, completion, serve
from tests.fixtures.served import serve_gguf, smollm2
from training import endpoint
from training.endpoint import Endpoint, open_chat
from training.workshop.tune import closing_lines, tune_served
from training.workshop.tuning import engines, probe
from training.workshop.tuning.cases import Case, read_cases, split
from training.workshop.tuning.output import write_modelfile, write_settings
from training.workshop.tuning.screen import Screen
from training.workshop.tuning.session import tune
from training.workshop.tuning.settings import Settings, read_settings
from training.workshop.tuning.space import PBOUNDS, read_space

TARGET = "the kernel ended the database because memory ran out on this host"
CASE = Case(prompt="Explain: Out of memory", target=TARGET)
ONE = ["--prompt", CASE.prompt, "--target", TARGET]


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(endpoint, "_LONGEST_WAIT_S", 0.0)


def warm_only(body):
    """Heeds temperature alone: each word is wrong with its probability, by prompt and seed."""
    draw = random.Random(f"{body['messages']}{body.get('seed')}")
    heat = body.get("temperature", 0.8)
    return Reply(" ".join(word if draw.random() > heat else "other" for word in TARGET.split()))


def settings(url, **more):
    return Settings(**({"url": url, "init_points": 3, "n_iter": 1, "repeats": 1} | more))


def run(*arguments):
    return main(["workshop", "tune", *map(str, arguments)])


# --- bounds and cases ---------------------------------------------------------------------------------------


def test_bounds_are_the_documented_ones_unless_a_file_says_otherwise():
    space = read_space()
    assert space.names == ["temperature", "top_p", "frequency_penalty", "presence_penalty", "top_k"]
    lowest = space.params_at(dict.fromkeys(space.dimensions, 0.0))
    highest = space.params_at(dict.fromkeys(space.dimensions, 1.0))
    assert list(lowest.values()) == [0.1, 0.1, -1.0, -1.0, 1]
    assert list(highest.values()) == [0.9, 0.9, 1.0, 1.0, 100]
    assert isinstance(highest["top_k"], int)
    assert [PBOUNDS[name] for name in space.names] == [(0.1, 0.9), (0.1, 0.9), (-1, 1), (-1, 1), (1, 100)]


def test_bounds_may_be_of_any_type_and_parameters_added(tmp_path):
    file = tmp_path / "tune.yaml"
    file.write_text(
        "pbounds:\n  presence_penalty: [0, 1]\n  top_k: [5, 9]\n  mirostat: {values: [0, 1, 2]}\n"
        "  min_p: {low: 0.01, high: 1, log: true}\ninit_points: 7\n"
    )
    found = read_settings(file, {"n_iter": 3})
    space = read_space(found.pbounds)
    middle = space.params_at(dict.fromkeys(space.dimensions, 0.5) | {"mirostat=2": 0.6})
    assert middle == {"presence_penalty": 0.5, "top_k": 7, "mirostat": 2, "min_p": 0.1}
    assert space.params_at(space.point_of(middle)) == middle
    assert (found.init_points, found.n_iter) == (7, 3)


@pytest.mark.parametrize(
    ("pbounds", "said"),
    [
        ({"temperature": [0.9, 0.1]}, "temperature goes from 0.9 to 0.1"),
        ({"temperature": [0.1]}, "no pair of bounds"),
        ({"temperature": "hot"}, "no pair of bounds"),
        ({"temperature": [0.1, "x"]}, "bound 'x'"),
        ({"temperature": [0.1, float("inf")]}, "bound inf"),
        ({"temperature": [False, True]}, "bound False"),
        ({"top_k": {"type": "int", "low": 1.5, "high": 9}}, "bound 1.5"),
        ({"mode": {"values": ["a"]}}, "at least two"),
        ({"mode": {"type": "colour"}}, "colour"),
        ({"mode": {"low": 0, "high": 1, "steps": 3}}, "no key 'steps'"),
        ({"mode": {"low": 0, "high": 1, "log": True}}, "logarithmic"),
        ({"messages": [0, 1]}, "messages cannot be searched"),
        ({}, "no table of bounds"),
    ],
)
def test_bad_bounds_are_refused_with_their_key(pbounds, said):
    with pytest.raises(ConfigError) as caught:
        read_space(pbounds)
    assert said in f"{caught.value} {caught.value.hint}"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("c.jsonl", '{"prompt": "a", "target": "b"}\n{"prompt": "a"', "line 2: no JSON"),
        ("c.jsonl", '{"prompt": "a"}', "nothing to compare with"),
        ("c.jsonl", '{"prompt": " ", "target": "b"}', "the prompt is empty"),
        ("c.jsonl", '{"prompt": 3, "target": "b"}', "line 1: Expected `str`"),
        ("c.jsonl", '{"prompt": "a", "target": "b", "x": 1}', "unknown field `x`"),
        ("c.jsonl", "[" * 100_000, "line 1: no JSON"),
        ("c.jsonl", "", "holds no case"),
        ("c.jsonl", b"\xff\xfe", "cannot be read"),
        ("c.toml", "case = 3", "no [[case]]"),
        ("c.toml", "[[case", "no TOML"),
        ("c.yaml", "case: [", "no YAML"),
        ("c.yaml", "- a", "holds no tables"),
        ("missing.jsonl", None, "cannot be read"),
    ],
)
def test_bad_cases_are_refused_with_their_place(tmp_path, capsys, name, text, said):
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert run("--cases", path, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_cases_in_toml_yaml_and_jsonl_are_the_same(tmp_path):
    (tmp_path / "c.toml").write_text('[[case]]\nprompt = "p"\ntarget = "t"\nrequired = ["r|s"]\n')
    (tmp_path / "c.yaml").write_text("case:\n- {prompt: p, target: t, required: [r|s]}\n")
    (tmp_path / "c.jsonl").write_text('\n{"prompt": "p", "target": "t", "required": ["r|s"]}\n')
    found = [read_cases(path, system="s") for path in sorted(tmp_path.iterdir())]
    assert found == [[Case(prompt="p", target="t", required=("r|s",), system="s")]] * 3


def test_held_out_cases_are_those_that_say_so_or_a_share_that_stays_the_same():
    cases = [Case(prompt=str(number), target="t") for number in range(10)]
    kept, held = split(cases, 0.3)
    assert (len(kept), len(held)) == (7, 3)
    assert split(cases[::-1], 0.3)[1] == held[::-1]
    assert split(cases[:1], 0.3) == (cases[:1], [])
    said = [*cases, Case(prompt="x", target="t", held_out=True)]
    assert split(said, 0.3)[1] == said[-1:]


# --- engines ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["bayes", "optuna", "random"])
def test_engines_start_alike_keep_to_the_bounds_and_propose_the_same_again(engine):
    space = read_space({**PBOUNDS, "mode": {"values": ["a", "b"]}})
    trials = []
    for number in range(5):
        params = engines.suggest(engine, space, trials, init_points=3, seed=1)
        if number < 3:
            assert params == engines.suggest("random", space, trials, init_points=3, seed=1)
        trials.append({"params": params, "target": params["temperature"]})
        assert space.params_at(space.point_of(params)) == params
        assert all(-1e-9 <= one <= 1 for one in space.point_of(params).values())
    again = engines.suggest(engine, space, trials[:4], init_points=3, seed=1)
    assert again == trials[4]["params"]
    assert isinstance(again["top_k"], int)
    assert again["mode"] in {"a", "b"}


def test_bayes_comes_nearer_to_a_known_optimum_than_chance(tmp_path):
    case = Case(prompt="Explain", target=" ".join(SURFACE_WORDS))
    found = {}
    with serve(scripted) as served:
        for engine in ("bayes", "random"):
            asked = settings(served.url, engine=engine, seed=2, probe=False, n_iter=9, repeats=2)
            result = tune([case], tmp_path / engine, asked)
            found[engine] = quality(result["params"])
            assert result["requests"] == 1 + 2 + 12 * 2
    assert found["bayes"] > found["random"]


def test_recommended_is_what_the_model_believes_in_not_the_luckiest_step():
    space = read_space({"temperature": [0.0, 1.0]})
    trials = [{"params": {"temperature": x / 20}, "target": 1 - (x / 20 - 0.3) ** 2} for x in range(21)]
    trials[11] = {**trials[11], "target": 1.02}  # 0.94, but lucky once
    assert engines.recommend("random", space, trials, init_points=3) == trials[11]
    assert abs(engines.recommend("bayes", space, trials, init_points=3)["params"]["temperature"] - 0.3) < 0.11


# --- the probe ----------------------------------------------------------------------------------------------


def probed(script, *, takes_seed=True, pbounds=None):
    with serve(script) as served:
        chat = open_chat(Endpoint(url=served.url), "prompts", final=("empty",))
        space = read_space(pbounds)
        found = probe.probe(chat, space, [CASE], {}, takes_seed=takes_seed)
        assert len(served.asked) <= probe.most_requests(space, 1)
    return {one.name: one.verdict for one in found.heeds}


def test_probe_tells_the_heeded_from_the_ignored():
    found = probed(warm_only)
    assert found.pop("temperature") == "heeded"
    assert set(found.values()) == {"ignored"}


def test_probe_of_a_server_that_never_repeats_itself_judges_by_stillness():
    draw = random.Random(0)

    def script(body):
        still = body.get("temperature") == 0.0 or body.get("top_p", 1.0) < 0.01
        extra = f" {body.get('frequency_penalty', 0)}"
        return Reply(f"still{extra}" if still else f"{draw.random()}")

    assert probed(script, takes_seed=False) == {
        "temperature": "heeded",
        "top_p": "heeded",
        "frequency_penalty": "heeded",
        "presence_penalty": "ignored",
        "top_k": "ignored",
    }
    assert set(probed(lambda _body: Reply(f"{draw.random()}")).values()) == {"ignored", "unclear"}


def refusing(body):
    if "top_k" in body:
        return Reply(raw=b'{"error": {"message": "unknown parameter top_k"}}', status=400)
    return warm_only(body)


def test_refused_parameter_stops_the_search_unless_it_may_be_dropped(tmp_path, capsys):
    with serve(refusing) as served:
        common = ["--url", served.url, *ONE, "--init-points", 2, "--n-iter", 0]
        assert run(*common, "--out", tmp_path / "a") == 2
        error = capsys.readouterr().err
        assert "the server refuses top_k" in error
        assert "unknown parameter top_k" in error
        assert run(*common, "--out", tmp_path / "b", "--drop-ignored", "--json") == 0
    said = capsys.readouterr()
    assert list(json.loads(said.out)["params"]) == ["temperature"]
    assert "IGNORES top_p" in said.err


def test_real_server_heeds_all_five():
    with serve_gguf(smollm2()) as url:
        chat = open_chat(Endpoint(url=url), "prompts", final=("empty",))
        case = Case(prompt="What is a server?", target="A computer.")
        found = probe.probe(chat, read_space(), [case], {"max_tokens": 16}, takes_seed=True)
    assert {one.name: one.verdict for one in found.heeds} == dict.fromkeys(PBOUNDS, "heeded")


# --- the verb -----------------------------------------------------------------------------------------------


def test_search_ends_with_the_documented_lines_and_shows_each_step(tmp_path, capsys):
    with serve(warm_only) as served:
        assert run("--url", served.url, *ONE, "--init-points", 2, "--n-iter", 2, "--out", tmp_path) == 0
    said = capsys.readouterr()
    first, second = said.out.splitlines()
    assert first == "Beste gefundene Parameter:"
    result = json.loads((tmp_path / "result.json").read_text())
    assert second == str({"target": result["target"], "params": result["params"]})
    assert closing_lines(result) == said.out.strip()
    assert "requests to search and judge, at most" in said.err
    steps = [line for line in (tmp_path / "trials.jsonl").open() if '"trial"' in line]
    assert len(steps) == 4
    for number, line in enumerate(map(json.loads, steps), 1):
        assert f"step {number} of 4: similarity {line['target']:.4f}, temperature=" in said.err
        assert line["answers"][0]["answer"] in said.err
    assert "IGNORES top_k" in said.err
    assert (tmp_path / "search.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert "Best steps" in (tmp_path / "search.html").read_text()
    assert "step 1" in (tmp_path / "tune.log").read_text()
    assert result["requests"] == len((tmp_path / "audit.jsonl").read_text().splitlines()) == len(served.asked)


def test_parameters_and_seeds_go_as_they_are_told_and_no_step_repeats_a_seed(tmp_path):
    cases = [Case(prompt=str(number), target=TARGET, system="short") for number in range(6)]
    with serve(warm_only) as served:
        asked = settings(
            served.url, probe=False, repeats=2, model="m", headers={"X-A": "b"}, fixed={"max_tokens": 9}
        )
        result = tune(cases, tmp_path, asked)
    assert all(body["max_tokens"] == 9 and body["model"] == "m" for body in served.asked)
    assert all(body["messages"][0] == {"role": "system", "content": "short"} for body in served.asked)
    assert served.headers[0]["X-A"] == "b"
    held = {one.prompt for one in split(cases, 0.3)[1]}
    steps = [json.loads(line) for line in (tmp_path / "trials.jsonl").open()]
    seeds = [{answer["seed"] for answer in one["answers"]} for one in steps if one["kind"] == "trial"]
    assert len(set.union(*seeds)) == 4 * 2
    searched = served.asked[: 1 + 5 * 4 * 2]
    assert not held & {body["messages"][1]["content"] for body in searched}
    judged = served.asked[len(searched) :]
    assert {body["messages"][1]["content"] for body in judged} == held
    assert len(judged) == 2 * len(held) * 2
    assert result["held_out"]["answers"] == len(held) * 2
    assert result["held_out"]["tuned"] > result["held_out"]["defaults"]


def test_stopped_search_goes_on_where_it_was_and_comes_to_the_same_end(tmp_path):
    answered = []

    def script(body):
        answered.append(body)
        return Reply(status=500, raw=b"<h1>down</h1>") if 5 < len(answered) < 5 + 6 else warm_only(body)

    with serve(script) as served:
        asked = settings(served.url, probe=False, n_iter=3)
        with pytest.raises(ChatError, match="500") as caught:
            tune([CASE], tmp_path / "a", asked)
        assert "3 steps are kept, --resume goes on" in caught.value.hint
        assert not (tmp_path / "a" / "result.json").exists()
        with pytest.raises(ConfigError, match="holds a search"):
            tune([CASE], tmp_path / "a", asked)
        half = (tmp_path / "a" / "trials.jsonl").read_bytes()
        (tmp_path / "a" / "trials.jsonl").write_bytes(half + b'{"kind": "trial", "tar')
        resumed = tune([CASE], tmp_path / "a", asked, resume=True)
        whole = tune([CASE], tmp_path / "b", asked)
        other = settings(served.url, probe=False, n_iter=3, similarity="sequence")
        with pytest.raises(ConfigError, match="something else: similarity"):
            tune([CASE], tmp_path / "a", other, resume=True)
    assert [resumed[name] for name in ("target", "params", "steps")] == [
        whole[name] for name in ("target", "params", "steps")
    ]


def test_same_parameters_tried_twice_are_worth_their_mean():
    space = read_space({"temperature": [0.0, 1.0]})
    told = [(0.5, 1.0), (0.2, 0.8), (0.5, 0.2)]
    trials = [{"params": {"temperature": heat}, "target": target} for heat, target in told]
    found = engines.recommend("random", space, trials, init_points=3)
    assert found == {"params": {"temperature": 0.2}, "target": 0.8}


def test_search_ends_when_its_minutes_are_over(tmp_path):
    told = []
    with serve(lambda body: warm_only(body)._replace(delay_s=0.05)) as served:
        asked = settings(served.url, probe=False, n_iter=500, minutes=0.005)
        assert 1 <= tune([CASE], tmp_path, asked, tell=told.append)["steps"] < 20
    assert any("minutes are over" in said for said in told)
    assert any("requests to search" in said for said in told)


def test_folder_that_cannot_be_written_is_told_in_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    with serve(warm_only) as served:
        assert run("--url", served.url, *ONE, "--out", tmp_path / "file" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err
    with serve(warm_only) as served:
        assert run("--url", served.url, *ONE, "--out", "/dev/full/out") == 2


def test_prompt_given_goes_before_the_cases_of_the_file(tmp_path):
    (tmp_path / "t.toml").write_text('[[case]]\nprompt = "other"\ntarget = "x"\n')
    with serve(warm_only) as served:
        common = ["--url", served.url, "--no-probe", "--init-points", 1, "--n-iter", 0]
        assert run("--config", tmp_path / "t.toml", *common, *ONE, "--out", tmp_path / "a") == 0
        assert run("--config", tmp_path / "t.toml", *common, "--out", tmp_path / "b") == 0
    asked = [body["messages"][0]["content"] for body in served.asked]
    assert asked == [CASE.prompt] * 5 + ["other"] * 5


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (Reply(raw=b"{}", status=429, headers={"Retry-After": "0"}), "answers 429"),
        (Reply(raw=b"<h1>oops</h1>", status=500), "answers 500"),
        (Reply(raw=b'{"choices": [{"mess'), "no whole JSON"),
        (Reply(raw=b"<html>hi</html>", kind="text/html"), "a web page"),
        (Reply(raw=completion("half"), length=5000), "in the middle of its answer"),
        (Reply("  "), "answer is empty"),
        (Reply(raw=b'{"error": "bad key"}', status=401), "is the key right"),
        (Reply(raw=b'{"error": "no such model"}', status=404), "is there such a model"),
        (Reply("late", delay_s=1.0), "no whole answer in 0.2 s"),
    ],
)
def test_server_that_fails_is_told_in_one_line_and_leaves_no_search(tmp_path, capsys, reply, said):
    with serve([reply]) as served:
        assert run("--url", served.url, *ONE, "--out", tmp_path, "--timeout", 0.2) == 1
    lines = capsys.readouterr().err.splitlines()
    assert said in " ".join(lines[-2:])
    assert "Traceback" not in "".join(lines)
    assert not (tmp_path / "trials.jsonl").exists()


def test_server_that_is_not_there_and_one_that_may_not_be_asked(tmp_path, capsys):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
        assert run("--url", url, *ONE, "--out", tmp_path) == 1
    assert "cannot be reached" in capsys.readouterr().err
    assert run("--url", "http://192.0.2.1/v1", *ONE, "--out", tmp_path) == 2
    assert "nothing says that prompts may leave it" in capsys.readouterr().err


def test_empty_answer_is_worth_nothing_but_ends_no_search(tmp_path):
    def script(body):
        return Reply(" ") if body.get("temperature", 0) > 0.4 else warm_only(body)

    with serve(script) as served:
        result = tune([CASE], tmp_path, settings(served.url, probe=False, init_points=5))
    steps = [json.loads(line) for line in (tmp_path / "trials.jsonl").open()]
    hot = [one for one in steps if one["kind"] == "trial" and one["params"]["temperature"] > 0.4]
    assert hot
    assert all(one["target"] == 0.0 for one in hot)
    assert result["requests"] == 1 + 1 + 6  # it is not asked again
    assert result["params"]["temperature"] <= 0.4


def test_similarity_is_the_one_that_was_asked_for(tmp_path):
    target = "The disk is full."
    with serve([Reply("The disk is not full.")]) as served:
        found = {
            name: tune(
                [Case(prompt="p", target=target)],
                tmp_path / name,
                settings(served.url, similarity=name, probe=False),
            )
            for name in ("sequence", "composite")
        }
    assert found["sequence"]["target"] > 0.85
    assert found["composite"]["target"] < 0.1


def test_unknown_settings_are_refused_with_the_known_ones(tmp_path, capsys):
    file = tmp_path / "tune.toml"
    for text, said in (
        ("temperature = 1", "unknown field `temperature`"),
        ('engine = "luck"', "Invalid enum value 'luck'"),
        ("n_iter = 0.5", "n_iter"),
        ("[fixed]\ntop_k = 3", "fixed.top_k is set by the search itself"),
    ):
        file.write_text(text)
        assert run("--config", file, *ONE, "--out", tmp_path / "out") == 2
        assert said in capsys.readouterr().err
    assert run("--out", tmp_path / "out") == 2
    assert "no case to search with" in capsys.readouterr().err


def test_training_run_may_end_with_a_search(tmp_path):
    (tmp_path / "cases.jsonl").write_text(json.dumps({"prompt": "p", "target": TARGET}))
    told, shown = [], []
    with serve(warm_only) as served:
        found = tune_served(
            tmp_path / "cases.jsonl",
            tmp_path / "out",
            settings(served.url),
            tell=told.append,
            watch=lambda step, total: shown.append((step["trial"], total)),
        )
    assert found["params"]
    assert shown == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert any("IGNORES" in said for said in told)


# --- what is written and shown ------------------------------------------------------------------------------

PARAMS = {"temperature": 0.3, "top_k": 40, "logit_mode": "x"}


def test_modelfile_keeps_what_it_said_and_gets_the_parameters(tmp_path):
    path = tmp_path / "Modelfile"
    path.write_text(
        'FROM ./model.gguf\nPARAMETER temperature 0.9\nPARAMETER stop "<|im_end|>"\n'
        'SYSTEM """\nPARAMETER top_k 3 is only a text\n"""\n'
    )
    assert write_modelfile(path, PARAMS, model="") == ["logit_mode"]
    assert path.read_text() == (
        'FROM ./model.gguf\nPARAMETER stop "<|im_end|>"\n'
        'SYSTEM """\nPARAMETER top_k 3 is only a text\n"""\nPARAMETER temperature 0.3\nPARAMETER top_k 40\n'
    )
    write_modelfile(tmp_path / "new", PARAMS, model="llama3")
    assert (tmp_path / "new").read_text() == "FROM llama3\nPARAMETER temperature 0.3\nPARAMETER top_k 40\n"
    with pytest.raises(ConfigError, match="nothing says what it is of"):
        write_modelfile(tmp_path / "newer", PARAMS, model="")


def test_settings_keep_everything_else(tmp_path):
    path = tmp_path / "hauswart.toml"
    path.write_text(
        '# mine\n[top]\nmode = "wording" # why\n'
        '[top.served]\nurl = "http://localhost:1"\nparameters = {a = 1}\n'
    )
    write_settings(path, PARAMS)
    assert "# mine" in path.read_text()
    assert "# why" in path.read_text()
    wanted = {"top": {"mode": "wording", "served": {"url": "http://localhost:1", "parameters": PARAMS}}}
    assert tomllib.loads(path.read_text()) == wanted
    write_settings(tmp_path / "new.toml", PARAMS)
    assert tomllib.loads((tmp_path / "new.toml").read_text()) == {"top": {"served": {"parameters": PARAMS}}}
    path.write_text("[top\n")
    with pytest.raises(ConfigError, match="cannot be changed"):
        write_settings(path, PARAMS)
    assert path.read_text() == "[top\n"


def test_found_parameters_go_where_the_options_say(tmp_path, capsys):
    with serve(warm_only) as served:
        assert run(
            "--url", served.url, *ONE, "--init-points", 1, "--n-iter", 0, "--no-probe", "--model", "m",
            "--out", tmp_path / "o", "--json",
            "--write-modelfile", tmp_path / "Modelfile", "--write-settings", tmp_path / "h.toml",
        ) == 0  # fmt: skip
    params = json.loads(capsys.readouterr().out)["params"]
    assert tomllib.loads((tmp_path / "h.toml").read_text())["top"]["served"]["parameters"] == params
    assert f"PARAMETER top_k {params['top_k']}" in (tmp_path / "Modelfile").read_text()


@pytest.mark.parametrize("terminal", [True, False])
def test_screen_shows_hostile_answers_as_text(terminal):
    output = io.StringIO()
    with Screen(Console(file=output, force_terminal=terminal, width=150, color_system=None)) as screen:
        answers = [{"answer": "[bold]hi\x1b]0;evil\x07\nthere", "score": 0.5}]
        for number in range(1, 30):
            step = {"trial": number, "target": 1 / number, "params": {"temperature": 0.5, "top_k": 3}}
            screen.step({**step, "answers": answers}, 30)
    shown = output.getvalue()
    assert "]0;evil" in shown
    assert "\x1b]0" not in shown
    assert "[bold]hi" in shown
    assert "1.0000" in shown.splitlines()[-18 if terminal else 0] or "1*" in shown
