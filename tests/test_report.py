"""The report of an experiment folder: what is drawn, what is left out, and the page in a browser."""

import dataclasses
import html.parser
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from speakerkd.models import MODELS, SpeakerNet, save_net
from speakerkd.report.figures import noise_chart
from speakerkd.report.gather import gather, interval_of, teacher_of
from speakerkd.report.svg import Axis, linear_axis, log_axis
from speakerkd.score.evaluate import add_to_metrics, evaluate
from speakerkd.score.trials import Speakers

Run = Callable[..., subprocess.CompletedProcess[str]]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync",
    "--disable-component-update", "--disable-quic", "--hide-scrollbars",
)  # fmt: skip


@pytest.fixture
def folder(recipe: Path) -> Path:
    """exp with a teacher and two students that it taught, a comparison, noise, maps; data/test/trials."""
    rng = np.random.default_rng(0)
    pairs = [(f"s{a}-{i}", f"s{b}-{i + 1}", a == b) for a in range(6) for b in range(6) for i in range(10)]
    target = np.array([each[2] for each in pairs])
    (recipe / "data/test").mkdir(parents=True)
    (recipe / "data/test/trials").write_text(
        "".join(f"{a} {b} {'target' if same else 'nontarget'}\n" for a, b, same in pairs)
    )
    speakers = Speakers(*(np.array([int(each[side][1]) for each in pairs]) for side in (0, 1)), 6)
    for name, gap, size, teacher in (
        ("big_s0", 4.0, 16, ""),
        ("small_enskd_big_s0", 3.0, 8, "exp/big_s0/final.pt"),
        ("small_none_s0", 2.0, 8, ""),
    ):
        exp = recipe / "exp" / name
        (exp / "scores").mkdir(parents=True)
        torch.manual_seed(0)
        conf = MODELS["xvector"].Conf(channels=size, stats_channels=size, embedding_dim=size)
        save_net(exp / "final.pt", SpeakerNet(MODELS["xvector"](conf, 20)))
        scores = (rng.standard_normal(len(pairs)) + gap * target).astype(np.float32)
        (exp / "scores/trials.cosine").write_text(
            "".join(f"{a} {b} {score}\n" for (a, b, _), score in zip(pairs, scores, strict=True))
        )
        row = evaluate(scores, target, speakers, None, 50)
        add_to_metrics(exp / "scores/metrics.tsv", row | {"trials": "trials", "scoring": "cosine", "lost": 0})
        run = {"command": ["local/train.py", "--teacher", teacher, "<b>&"], "commit": "abc"}
        (exp / "conf.json").write_text(
            json.dumps({"options": {"method": {"type": "none"}, "teacher": teacher}, "run": run})
        )
        (exp / "log.tsv").write_text("step\tepoch\tce\taccuracy\n1\t1\t3\t0.1\n2\t2\t2\t0.3\n")
    (recipe / "exp/stray").mkdir()
    (recipe / "exp/compare").mkdir()
    (recipe / "exp/compare/comparison.tsv").write_text(
        "student\tkd_type\tteacher\tEER %\tEER - none\tp\n"
        "small\tnone\t-\t5.0 [4.0, 6.0]\t-\t-\nsmall\tenskd\tbig\t4.0 [3.0, 5.0]\t-1.00 [-1.80, -0.20]\t0.01\n"
    )
    (recipe / "exp/noise").mkdir()
    (recipe / "exp/noise/noise.tsv").write_text(
        "system\tnoise\tsnr\teer\nbig_s0\tclean\t-\t1\nbig_s0\tnoise\t10\t3\nbig_s0\tnoise\t0\t9\n"
    )
    (recipe / "exp/pair").mkdir()
    (recipe / "exp/pair/matrix.tsv").write_text(
        "scoring\tmap\tcell\teer\teer_low\teer_high\tgain\tgain_low\tgain_high\n"
        "cosine\traw\tTT\t1\t0\t2\tnan\tnan\tnan\ncosine\traw\tTS\t2\t0\t3\t0.5\t0\t1\n"
    )
    return recipe


class Page(html.parser.HTMLParser):
    """Tags, texts, and whether all that is opened is closed."""

    VOID = frozenset({"meta", "link", "path", "circle", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_all_sections_are_there(folder: Path, sh: Run) -> None:
    done = sh("local/report.py", "exp")
    assert "3 systems" in done.stdout
    text = (folder / "exp/report.html").read_text()
    page = Page(text)
    assert page.open == []
    ids = [attrs["id"] for tag, attrs in page.tags if tag == "section"]
    assert ids == ["systems", "cost", "det", "scores", "noise", "comparisons", "maps", "training", "settings"]
    labels = [attrs["aria-label"] for tag, attrs in page.tags if tag == "svg" and "aria-label" in attrs]
    assert len([each for each in labels if each and "EER against" in each]) == 2
    assert "EER - none with intervals" in labels and "EER by noise" in labels
    assert "&lt;b&gt;&amp;" in text and "<b>&" not in text  # what stands in commands is text
    assert "http" not in re.sub(r"http://www\.w3\.org\S*", "", text)  # nothing is fetched
    assert "stray" not in text


def test_a_student_is_joined_to_its_teacher(folder: Path) -> None:
    systems = {each.name: each for each in gather(folder / "exp").systems}
    teachers = {name: teacher_of(system, list(systems.values())) for name, system in systems.items()}
    assert {name: each.name for name, each in teachers.items() if each} == {"small_enskd_big_s0": "big_s0"}
    taught, alone = systems["small_enskd_big_s0"], systems["small_none_s0"]
    for system in (taught, alone):  # a net to start from is no teacher
        system.settings["run"]["command"][1:1] = ["--init", "exp/small_longer_name_s0/final.pt"]
    every = [*systems.values(), dataclasses.replace(alone, name="small_longer_name_s0")]
    assert teacher_of(taught, every) is systems["big_s0"] and teacher_of(alone, every) is None


def test_the_noise_chart_leaves_out_what_has_no_ratio() -> None:
    rows = [{"system": "a", "noise": noise, "snr": snr, "eer": eer}
            for noise, snr, eer in (("clean", "-", "2"), ("noise", "0", "9"), ("telephone", "-", "15"))]  # fmt: skip
    assert "15.00 %" not in noise_chart(rows) and "9.00 %" in noise_chart(rows) and "2.00 %" in noise_chart(rows)
    assert noise_chart(rows[::2]) == ""


def test_folders_with_little_or_nothing(folder: Path, sh: Run) -> None:
    assert "no such folder" in sh("local/report.py", "nowhere", fails=True).stderr
    assert "run stages 3 to 6" in sh("local/report.py", "exp/stray", fails=True).stderr
    (folder / "exp/big_s0/conf.json").write_text("{")
    (folder / "exp/small_none_s0/scores/trials.cosine").unlink()
    done = sh("local/report.py", "--runs", "0", "exp")
    assert "big_s0 was left out" in done.stderr and "2 systems" in done.stdout


def test_what_does_not_belong_there_ends_nothing(folder: Path, sh: Run) -> None:
    for name, text in (("dev", "s0-0 s0-1 target\n"), ("blind", "s0-0 s1-1\n")):
        (folder / f"data/{name}").mkdir()
        (folder / f"data/{name}/trials").write_text(text)
    (folder / "exp/odd.tsv").write_bytes(b"a\tb\xff\n")
    for name, file, text in (("big_s0", "conf.json", "[1]"), ("small_enskd_big_s0", "log.tsv", "")):
        shutil.copytree(folder / "exp" / name, folder / "exp/damaged" / name)
        (folder / "exp/damaged" / name / file).write_text(text)
    assert "run stages 3 to 6" in sh("local/report.py", "exp/damaged", fails=True).stderr
    assert "--runs 0 or more" in sh("local/report.py", "--runs", "-1", "exp", fails=True).stderr
    (folder / "exp/dir.tsv").mkdir()
    os.utime(folder / "exp/small_none_s0/final.pt", (4e9, 4e9))
    done = sh("local/report.py", "--runs", "0", "exp")
    assert "odd.tsv was left out" in done.stderr
    assert "small_none_s0: scores are older than its final.pt and were left out: trials by cosine" in done.stderr
    assert 'id="det"' in (folder / "exp/report.html").read_text()


def test_more_systems_than_a_picture_takes(folder: Path, sh: Run) -> None:
    for number in range(24):
        shutil.copytree(folder / "exp/small_none_s0", folder / f"exp/more{number:02d}_s0")
    sh("local/report.py", "--runs", "0", "exp")
    text = (folder / "exp/report.html").read_text()
    assert "trials, cosine; the first 24 of 27 systems" in text
    section = text.split('id="scores"')[1].split("</section>")[0]
    toggles = set(re.findall(r'data-toggle="(\d+)"', section))
    assert toggles and toggles <= set(re.findall(r'data-series="(\d+)"', section))


def test_axes_by_hand() -> None:
    axis = linear_axis("", [0.0, 10.0], zero=True)
    assert axis.low == 0 and [place for place, _ in axis.ticks] == [0, 5, 10]
    assert Axis("", 1, 100, (), log=True).part(10) == pytest.approx(0.5)
    assert [name for _, name in log_axis("", [1.0, 10.0]).ticks] == ["1", "2", "5", "10"]
    assert interval_of("+0.38 [-0.90, +2.19]") == (0.38, -0.9, 2.19) and interval_of("-") is None


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (Debian: apt-get install chromium)")
def test_the_page_in_a_browser(folder: Path, sh: Run, tmp_path: Path) -> None:
    """No error on the console, sorting turns the rows round, a legend hides its line; a picture can be made."""
    sh("local/report.py", "--runs", "0", "exp")
    page = folder / "exp/report.html"
    script = "<script>addEventListener('error', (e) => document.body.dataset.error = e.message);</script>"
    probe = (
        "<script>const t = document.querySelector('table.sort'); const b = t.tHead.rows[0].cells[3].querySelector('button');"
        "const col = () => [...t.tBodies[0].rows].map((r) => parseFloat(r.cells[3].textContent));"
        "b.click(); const up = col(); b.click(); const down = col();"
        "const toggle = document.querySelector('#det [data-toggle]'); toggle.click();"
        "const line = document.querySelector('#det [data-series]');"
        "document.body.dataset.probe = JSON.stringify({up, down, hidden: line.style.display,"
        " sort: t.tHead.rows[0].cells[3].getAttribute('aria-sort'),"
        " letters: Math.min(...[...document.querySelectorAll('svg .tick')].map((e) => e.getBoundingClientRect().height)),"
        " over: [...document.querySelectorAll('body *')].filter((e) => !e.closest('.wide, svg') && "
        "e.getBoundingClientRect().right > innerWidth + 1).map((e) => e.outerHTML.slice(0, 80))});</script>"
    )
    text = page.read_text().replace("<body>", f"<body>{script}").replace("</body>", f"{probe}</body>")
    (tmp_path / "probe.html").write_text(text)

    def chromium(*words: str) -> subprocess.CompletedProcess[str]:
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=120)

    dumped = chromium("--window-size=390,800", "--dump-dom", f"file://{tmp_path / 'probe.html'}").stdout
    body = re.search(r"<body[^>]*>", dumped)
    assert body and "data-error" not in body[0], dumped[:500]
    found = json.loads(html.unescape(re.search(r'data-probe="([^"]*)"', body[0])[1]))  # type: ignore[index]
    assert found["up"] == sorted(found["up"]) and found["down"] == found["up"][::-1] and len(set(found["up"])) == 3
    assert found["hidden"] == "none" and found["sort"] == "descending"
    assert found["letters"] > 10  # pixels: a chart's letters can be read there
    assert found["over"] == []  # nothing but wide tables reaches over the edge of a phone
    picture = tmp_path / "page.png"
    done = chromium("--enable-logging=stderr", "--window-size=1200,3000", f"--screenshot={picture}", f"file://{page}")
    assert picture.stat().st_size > 20000
    assert "CONSOLE" not in done.stderr
