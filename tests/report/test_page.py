"""The page: what it says, that nothing gets in unescaped, and that it needs nothing but itself."""

from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from spro_hf.errors import UserError
from spro_hf.report import write_report
from spro_hf.report.page import _colours, added
from spro_hf.report.reading import FIELDS

SECTIONS = ("headline", "samples", "table", "gains", "costs", "win_rates", "watch", "curves", "prompts", "strategies",
            "replies", "artifacts", "unknown", "notes", "made")  # fmt: skip
VOID = {"meta", "link", "img", "br"}


class Page(HTMLParser):
    """Every element with its attributes, the text of the page, and the elements left open."""

    def __init__(self, html: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def ids(self):
        return [attributes["id"] for _, attributes in self.elements if attributes.get("id") in SECTIONS]


def page(folder) -> Page:
    parsed = Page(write_report(folder).read_text(encoding="utf-8"))
    assert parsed.open == []
    parsed.text = " ".join(parsed.text.split())
    return parsed


def table_of(html: str, label: str) -> list[str]:
    """The text of every row of the table with this label."""
    table = html[html.index(f'aria-label="{label}"') :].partition("</table>")[0]
    return [" ".join(re.sub("<[^>]+>", " ", row).split()) for row in re.findall("<tr.*?</tr>", table, re.DOTALL)]


def test_sections_stand_in_order_and_say_the_numbers(make_run):
    told = page(make_run())
    assert told.ids() == [name for name in SECTIONS if name != "costs"]  # SPRO's stages have no such rows
    assert "It learned on 2 of 3 objectives." in told.text
    assert (
        "engagement, SPRO-MM: proxy +61%, but planted truth falls (−8.0%) and judge falls (0.500 to 0.460)."
        in told.text
    )
    # rounds 1 to 4: own reward 36 · 1.13 to 36 · 1.52, planted 36 · (1.078 − 0.02) to 36 · (1.312 − 0.32), error √2 · 0.6
    assert "Own reward +35%, but planted truth −6.2%: they part from round 4 on. Perhaps noise: alignment" in told.text
    assert "5.36 ± 0.05" in told.text  # aesthetics, SPRO-MM: 4.0 · 1.34
    assert "n = 96 captions per cell" in told.text
    assert "74% ± 4.0" in told.text  # win rate of the third system
    assert "+0.620 ± 0.070" in told.text
    assert "30 : 3" in told.text
    assert "40 7.8%" in told.text  # 40 of 512 replies unparsed
    assert 'Guider.load("tiny/guider", adapter="spro/tiny-aesthetics-guider")' in told.text
    assert "0123456789ab" in told.text
    assert "“a red unicorn”: unicorn" in told.text
    assert "12 min 34 s" in told.text  # 754 s
    assert "spro-hf run recipes/tiny/spro.yaml" in told.text


def test_best_of_every_column_is_bold(make_run):
    html = write_report(make_run(["aesthetics"])).read_text()
    bold = re.findall(r"<strong>([\d.]+)", html)
    # own 4 · 1.34, planted 4 · 1.26, judge 0.5 + 0.26 / 2, alignment; no winner where all systems are equal
    assert sorted(bold) == ["0.630", "0.910", "5.04", "5.36"]


def test_the_page_needs_nothing_but_itself(make_run):
    told = page(make_run())
    for tag, attributes in told.elements:
        assert tag not in ("script", "iframe", "object", "embed")
        assert not any(name.startswith("on") for name in attributes)
        for name in ("src", "href", "srcset", "action", "poster"):
            assert re.match(r"data:|#", attributes.get(name) or "#"), (tag, attributes)
    html = (make_run() / "report.html").read_text()
    assert "http://" not in html
    assert "https://" not in html
    assert "url(" not in html
    assert "@import" not in html
    assert "prefers-color-scheme: dark" in html


def test_small_pictures_are_embedded_as_they_are_and_described(make_run):
    folder = make_run()
    pictures = page(folder).all("img")
    assert len(pictures) == 3 * 4 * 6
    embedded = base64.b64decode(pictures[3]["src"].removeprefix("data:image/png;base64,"))
    with Image.open(io.BytesIO(embedded)) as found, Image.open(folder / "samples/aesthetics-0-3.png") as drawn:
        assert found.tobytes() == drawn.convert("RGB").tobytes()
    assert pictures[3]["class"] == "pixelated"
    assert pictures[3]["alt"] == (
        "SPRO-Prompt for the caption “a red circle on navy”, prompt: a red circle on navy, bold outline"
    )


def test_large_pictures_are_reduced_and_smooth(make_run):
    told = page(make_run(["aesthetics"], size=512))
    picture = told.all("img")[0]
    assert (picture["width"], picture["height"]) == ("512", "512")
    assert "class" not in picture
    with Image.open(io.BytesIO(base64.b64decode(picture["src"].removeprefix("data:image/webp;base64,")))) as found:
        assert found.size == (320, 320)
    assert "It learned. SPRO-MM moves its own reward by +34% over the base" in told.text


def test_everything_is_escaped(make_run, results):
    evil = '"><script>alert(1)</script><img src=x onerror=alert(1)>'
    samples = results["samples"][:1]
    samples[0]["caption"] = evil
    samples[0]["systems"]["SPRO-MM"] |= {"prompt": evil * 5}
    folder = make_run(
        ["aesthetics"],
        title=evil,
        samples=samples,
        prompts=[{"objective": "aesthetics", "caption": "a", "before": evil, "after": evil, "plan": [evil]}],
        strategies=[results["strategies"][0] | {"phrase": evil}],
        curves=[row | {"stage": evil} for row in results["curves"] if row["objective"] == "aesthetics"],
        artifacts=[results["artifacts"][0] | {"repo": evil, "load": evil}],
        unknown_words=[{"caption": evil, "words": [evil]}],
        notes=[evil],
        made=results["made"] | {"command": evil},
    )
    told = page(folder)
    assert told.all("script") == []
    assert all(picture["src"].startswith("data:") for picture in told.all("img"))
    assert told.text.count("<script>alert(1)</script>") > 8
    assert told.all("img")[-1]["alt"].count(evil) == 1 + 5  # caption and prompt, whole


def test_empty_lists_leave_their_sections_out(make_run):
    lists = set(FIELDS) - {"title", "subtitle", "made", "objectives", "systems", "metrics"}
    empty = {name: [] for name in lists}
    told = page(make_run(**empty))
    assert told.ids() == ["made"]
    links = [link["href"] for link in told.all("a")]
    assert links == ["#main", "#made"]
    assert page(make_run([], **empty)).ids() == ["made"]


def test_world_without_a_planted_truth(make_run, results):
    gains = [g | {"planted": None, "planted_se": None} for g in results["gains"]]
    table = [c for c in results["table"] if c["metric"] not in ("planted", "alignment")]
    metrics = [m for m in results["metrics"] if m["name"] not in ("planted", "alignment")]
    told = page(make_run(gains=gains, table=table, metrics=metrics))
    assert "there is no planted truth here" in told.text
    assert "engagement, SPRO-MM: proxy +61%, but judge falls (0.500 to 0.460)." in told.text
    gains = [g for g in gains if g["objective"] == "aesthetics"]
    told = page(make_run(["aesthetics"], gains=gains, table=table, metrics=metrics))
    assert "Nothing to report: wherever a proxy rises" in told.text and "Looked at: judge." in told.text
    assert "planted truth</span>" not in told.text


def test_more_captions_than_are_shown_unfold(make_run, results):
    samples = [
        row | {"seed_id": f"{k}"} for k in range(3) for row in results["samples"] if row["objective"] == "aesthetics"
    ]
    told = page(make_run(["aesthetics"], samples=samples))
    assert "8 more captions" in told.text  # 12 captions, 4 in sight
    assert len(told.all("img")) == 12 * 6


def test_a_missing_picture_is_named(make_run):
    folder = make_run()
    (folder / "samples/aesthetics-0-0.png").unlink()
    with pytest.raises(UserError, match=r"picture 'samples/aesthetics-0-0\.png'"):
        write_report(folder)


def test_a_picture_outside_the_folder_is_refused(make_run, results):
    folder = make_run()
    (folder.parent / "secret.png").write_bytes((folder / "samples/aesthetics-0-0.png").read_bytes())
    results["samples"][0]["systems"]["base"]["image"] = "../secret.png"
    with pytest.raises(UserError, match="secret"):
        write_report(make_run(samples=results["samples"]))


def test_added_marks_the_words_that_the_caption_lacks():
    assert added("a red circle, warm <b>palette</b>", "a red circle") == (
        "a red circle, <ins>warm &lt;b&gt;palette&lt;/b&gt;</ins>"
    )
    assert added("a circle", "a red circle") == "a circle"


def test_policy_gradient_leaves_out_what_needs_a_guider(make_policy_run):
    told = page(make_policy_run())
    left = (
        "headline",
        "samples",
        "table",
        "gains",
        "costs",
        "win_rates",
        "watch",
        "curves",
        "artifacts",
        "notes",
        "made",
    )
    assert tuple(told.ids()) == left
    assert [link["href"] for link in told.all("a") if link["href"] == "#costs"] == ["#costs"]
    assert "so only the weights differ." in told.text
    assert "guider" not in told.text
    assert "the caption as it stands" not in told.text
    assert "The reward was hacked. DanceGRPO, the furthest of 5 trained systems" in told.text
    assert "−6.2alignment, points± 0.5" in told.text


def test_one_prompt_that_differs_brings_its_section_back(make_policy_run, policy):
    policy["prompts"][1]["after"] += ", gradient sky"
    assert "prompts" in page(make_policy_run(prompts=policy["prompts"])).ids()


def test_costs_say_what_training_took_and_gave(make_policy_run):
    html = write_report(make_policy_run()).read_text()
    assert "A call is one latent that the denoiser was asked about" in html
    lines = table_of(html, "What it cost, aesthetics")
    assert lines[0] == "training took and gave gain per"
    assert lines[1] == (
        "system steps pictures denoiser calls minutes reward gain planted gain alignment 100k calls minute"
    )
    # 0.45 / 3 and 0.45 / 10; two processes of 8 minutes: 0.32 / 16
    assert lines[2] == "Flow-GRPO 100 12,800 300,000 10.0 4.00 → 5.80 +45% ± 3.0 +38% ± 2.5 −0.4 ± 0.5 +15% +4.5%"
    assert lines[6] == "GRPO-Guard 100 12,800 300,000 8.0 × 2 4.00 → 5.28 +32% ± 3.0 +30% ± 2.5 0.0 ± 0.5 +11% +2.0%"
    assert "× counts the processes" in html
    table = html[html.index("What it cost, aesthetics") :]
    bold = re.findall(r"<strong>([^ <]+)", table[: table.index("</table>")])
    assert bold == ["+38%", "+25%", "+8.0%", "+0.3", "+52%"]  # planted, per calls and minute, alignment, own reward


def test_costs_without_an_oracle_and_with_one_process(make_policy_run, policy):
    unknown = {"planted": None, "planted_se": None, "alignment": None, "alignment_se": None, "processes": 1}
    folder = make_policy_run(
        costs=[row | unknown | {"method": "GRPO"} for row in policy["costs"]],
        gains=[row | {"planted": None, "planted_se": None} for row in policy["gains"]],
        table=[row for row in policy["table"] if row["metric"] not in ("planted", "alignment", "judge")],
        metrics=[m for m in policy["metrics"] if m["name"] not in ("planted", "alignment")],
    )
    html = write_report(folder).read_text()
    lines = table_of(html, "What it cost, aesthetics")
    assert lines[1] == "system steps pictures denoiser calls minutes reward gain 100k calls minute"
    assert lines[4] == "CPS GRPO 100 12,800 320,000 10.5 4.00 → 5.68 +42% ± 3.0 +13% +4.0%"
    assert "× counts" not in html
    assert "neither a planted truth nor the alignment was measured here" in html
    assert 'class="what">alignment,' not in html


def test_every_training_has_its_chart_on_shared_axes(make_policy_run, policy, results):
    html = write_report(make_policy_run()).read_text()
    charts = re.findall(r'<svg class="curves".*?</svg>', html)
    assert len(charts) == 5
    marks = {tuple(re.findall(r'class="tick" text-anchor="end">([^<]+)<', chart)) for chart in charts}
    # own reward and planted truth reach from 4 · (1 − 0.12) − 4 / 90 to 4 · 1.52 + 4 / 90: 3.48 to 6.12
    assert marks == {("3", "4", "5", "6", "7", "0.6", "0.8", "1")}
    assert [re.findall(r'class="axis-label"[^>]*>([^<]+ · step)<', chart) for chart in charts] == [
        [f"{name} · step"] for name in ("Flow-GRPO", "Flow-GRPO-Fast", "CPS", "DanceGRPO", "GRPO-Guard")
    ]
    assert 'id="curves">Reward by step<' in html
    mixed = write_report(make_policy_run(curves=results["curves"][:15] + policy["curves"])).read_text()
    assert len(re.findall(r'<svg class="curves"', mixed)) == 6
    assert 'id="curves">Reward by round and by step<' in mixed


def test_other_systems_take_the_colours_that_are_free():
    spro = ["base", "SPRO-Prompt", "first", "second"]
    assert _colours(spro) == {"base": 0, "SPRO-Prompt": 3, "first": 5, "second": 4}
    many = _colours(["base", *"abcdefgh"])
    assert [many[name] for name in "abcdefgh"] == [3, 5, 4, 2, 1, 6, 7, 3]


def test_names_of_methods_are_escaped(make_policy_run, policy):
    evil = "<script>alert(1)</script>"
    for name, key in (("costs", "method"), ("curves", "stage")):
        policy[name] = [
            row | {key: evil} if row.get("system", row.get("stage")) == "CPS" else row for row in policy[name]
        ]
    told = page(make_policy_run(costs=policy["costs"], curves=policy["curves"]))
    assert told.all("script") == []
    # once beside its costs, above its watch, in its chart's heading and axis, and at each of 4 · 8 points for screen readers
    assert told.text.count(evil) == 4 + 32


def test_the_watch_has_its_own_charts_and_the_curves_keep_theirs(make_policy_run, policy):
    rows = [row | {"stage": "CPS"} for row in policy["curves"] if row["stage"] == "CPS"]
    for name, start in (("<b>judge", 20.0), ("diversity", 30.0)):
        kind = "diversity" if name == "diversity" else "judge"
        rows += [
            row | {"name": name, "kind": kind, "mean": start - i, "se": 0.1} for i, row in enumerate(rows[::4][:8])
        ]
    html = write_report(make_policy_run(curves=rows)).read_text()
    parsed = Page(html)
    assert len(re.findall(r'<svg class="curves"', html)) == 1
    # own reward, planted truth, alignment, a judge and diversity; of the subject the alignment is enough
    assert len(re.findall(r'<svg class="small"', html)) == 5 and "<b>" not in html
    assert "but judge <b>judge −35%, diversity −23%: they part from step 26 on." in " ".join(parsed.text.split())
    assert html.count('class="parting"') == 5 and html.count('class="parted"') == 2
    assert [link["href"] for link in parsed.all("a")].count(
        "#watch"
    ) == 2  # among the sections, and from the evaluation's
    assert "Diversity" not in html[html.index('id="curves"') :]


def test_a_scorer_that_nothing_was_trained_on_is_called_a_judge_in_the_table(make_policy_run):
    judges = [{"objective": "aesthetics", "name": name} for name in ("engagement", "judge")]
    table = table_of(write_report(make_policy_run(judges=judges)).read_text(), "Scores, aesthetics")
    assert (
        table[0]
        == "system aesthetic trained on planted &nbsp; engagement judge pickscore reward judge &nbsp; alignment oracle"
    )
