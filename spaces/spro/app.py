"""The Space: one caption by the four systems of SPRO side by side, and a tab to look into what they learned from.

``python app.py`` shows the artifacts that lie beside it, on any CPU and without a network. See README.md.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections import deque
from pathlib import Path
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import drawing
import gradio as gr
import looks
import rollouts_tab
import sources

from spro_hf.run import quiet

KEPT = 12  # drawings of a visitor that are remembered
QUEUE = 20  # visitors that may wait
CSS = Path(__file__).with_name("style.css")
THEME = gr.themes.Soft(
    primary_hue="teal", secondary_hue="teal", neutral_hue="slate",
    font=["ui-sans-serif", "system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"],
).set(  # the theme's own colours of labels, of lesser text and of the button are too pale to be read by everyone
    block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_200", block_title_background_fill="none",
    block_title_background_fill_dark="none", block_title_padding="0", body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400", button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800", button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_600", checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    block_label_text_color="*neutral_700", button_secondary_background_fill_hover_dark="*neutral_500",
    input_border_width="1px", input_border_color="*neutral_300", checkbox_label_border_width="1px", button_border_width="1px",
    checkbox_label_border_color="*neutral_300", button_secondary_border_color="*neutral_300",
)  # fmt: skip
HEAD = (
    '<header class="head"><h1>SPRO</h1><p>Self-play reward optimisation of text-to-image models: a <em>guider</em> rewrites your '
    "caption, a <em>generator</em> draws it, and both were trained by rewards. The same caption by all four systems, from the "
    "same noise.</p></header>"
)
WORLD = (
    "The embedded pipelines are a toy of 32×32 pixels: ten shapes in ten colours on eight backgrounds, such as “a red circle "
    "left of a blue star on sand”, and rewards with planted tastes."
)
EXAMPLES = [
    "a red circle",
    "a yellow star above a blue moon on navy",
    "a pink heart at the left on mint",
    "a white ring on forest",
]

_downloads: deque[Path] = deque()
_folder = tempfile.TemporaryDirectory(prefix="spro-space-")


def draw(
    source: str,
    caption: str,
    seed: float | None,
    tweet: str,
    company: str,
    runs: list[dict[str, Any]],
    times: list[float],
) -> list[Any]:
    """Message, pictures, plan, download, gallery, the visitor's runs and when they were asked for."""
    post = {"tweet": tweet, "company": company}
    line, run, times = drawing.answer(source, caption, seed, post, times, time.monotonic())
    if run is None:
        return [line, *[gr.skip()] * 5, runs, times]
    runs = [*runs, run][-KEPT:]
    return [line, *_shown(run), gr.update(visible=True), _gallery(runs), runs, times]


def _shown(run: dict[str, Any]) -> list[Any]:
    """Pictures, plan and download of a run."""
    download = gr.DownloadButton(value=str(_zip(run)), interactive=True)
    return [looks.four(run), looks.plan(run), download]


def _zip(run: dict[str, Any]) -> Path:
    """A file that holds the run; Gradio copies it to where it serves it from, so that only the newest are kept."""
    while len(_downloads) >= 2 * QUEUE:
        shutil.rmtree(_downloads.popleft().parent, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(dir=_folder.name))
    _downloads.append(folder / f"spro-{run['objective']}-{run['seed']}.zip")
    _downloads[-1].write_bytes(drawing.packed(run))
    return _downloads[-1]


def _gallery(runs: list[dict[str, Any]]) -> list[tuple[Any, str]]:
    """SPRO-MM's picture of every run, the newest first."""
    return [
        (looks.opened(r["systems"]["SPRO-MM"]["png"]), f"{r['caption']} · {r['objective']} · seed {r['seed']}")
        for r in reversed(runs)
    ]


def again(runs: list[dict[str, Any]], event: gr.SelectData) -> list[Any]:
    """Show a run of the gallery again, with the caption and the seed that it was drawn from."""
    if not 0 <= event.index < len(runs):
        return [looks.message(looks.AGAIN), *[gr.skip()] * 5]
    run = runs[::-1][event.index]
    return ["", *_shown(run), run["caption"], run["seed"]]


def dice() -> int:
    """Another seed."""
    return random.randint(0, drawing.LAST_SEED)


def use_pipeline(source: str, given: list[str]) -> list[Any]:
    """Load a visitor's pipeline and offer it beside the others."""
    source = (source or "").strip()
    try:
        _, _, recipe = drawing.load(source)
    except Exception as error:
        return [looks.problem(error), gr.skip(), given]
    given = list(dict.fromkeys([*given, source]))
    line = looks.message(f"{source} is loaded; it was trained for {recipe['objective']}.", "hint")
    return [line, gr.update(choices=_choices(given), value=source), given]


def _choices(given: list[str]) -> list[str]:
    return list(dict.fromkeys([*sources.offered("pipeline"), *given]))


def _draw_tab() -> None:
    runs, times, given = gr.State([], time_to_live=3600), gr.State([]), gr.State([])
    choices = _choices([])
    caption = gr.Textbox(
        label="Caption",
        placeholder="a red circle left of a blue star on sand",
        lines=1,
        max_lines=1,
        autofocus=True,
        elem_id="caption",
    )
    with gr.Row(elem_classes="settings"):
        source = gr.Radio(choices, value=choices[0], label="Objective", elem_id="objective", scale=4, min_width=280)
        seed = gr.Number(0, label="Seed", elem_id="seed", scale=1, min_width=110)
        roll = gr.Button("⚂ Another seed", elem_id="dice", scale=1, min_width=130, size="md")
        button = gr.Button("Draw", variant="primary", elem_id="draw", scale=1, min_width=110, size="md")
    gr.Examples(EXAMPLES, caption, label="Captions to begin with")
    message = gr.HTML(elem_id="message")
    four, plan = gr.HTML(looks.empty(), elem_id="four"), gr.HTML(elem_id="plan")
    download = gr.DownloadButton("Download pictures and JSON", interactive=False, elem_id="download", size="md")
    with gr.Column(visible=False, elem_id="history") as history:
        gr.HTML("<h3>What you drew; choose one to see it again</h3>")
        gallery = gr.Gallery(
            show_label=False, label="What you drew", columns=6, fit_columns=False, height="auto", allow_preview=False, format="png",
            interactive=False, buttons=[], object_fit="contain",
        )  # fmt: skip
    with gr.Accordion("A post that the picture is for (objective engagement, chat-model guiders)", open=False):
        tweet = gr.Textbox(label="Tweet", lines=2, elem_id="tweet")
        company = gr.Textbox(label="Account that posts it", lines=1, elem_id="company")
    with gr.Accordion("Another pipeline of the Hub", open=False, elem_id="another-pipeline"):
        name = gr.Textbox(
            label="Artifact id", info="A public SPROPipeline as user/repo or user/repo@tag", elem_id="pipeline-id"
        )
        use = gr.Button("Use it", elem_id="use-pipeline", size="md")
        loaded = gr.HTML(elem_id="pipeline-message")
    shown = [message, four, plan, download]
    event = dict(
        fn=draw, inputs=[source, caption, seed, tweet, company, runs, times], outputs=[*shown, history, gallery, runs, times],
        concurrency_limit=1, concurrency_id="models", api_visibility="private", show_progress_on=four,
    )  # fmt: skip
    gr.on([button.click, caption.submit, seed.submit], **event, trigger_mode="once")
    roll.click(dice, None, seed, api_visibility="private")
    gallery.select(again, runs, [*shown, caption, seed], api_visibility="private", show_progress="hidden")
    gr.on(
        [use.click, name.submit], use_pipeline, [name, given], [loaded, source, given], concurrency_limit=1,
        concurrency_id="models", api_visibility="private", show_progress_on=loaded,
    )  # fmt: skip


def build() -> gr.Blocks:
    """The app with its queue; ``launched`` are the arguments that it is launched with."""
    with gr.Blocks(title="SPRO", analytics_enabled=False, delete_cache=(1800, 3600)) as demo:
        gr.HTML(HEAD)
        with gr.Tabs():
            with gr.Tab("Draw", id="draw"):
                _draw_tab()
            with gr.Tab("Rollouts", id="rollouts"):
                rollouts_tab.tab(demo)
        gr.HTML(f'<p class="foot">{WORLD}</p>')
    return demo.queue(max_size=QUEUE, default_concurrency_limit=4)


def launched() -> dict[str, Any]:
    """Arguments of ``launch`` by which nothing is asked of other machines and nothing of a visitor is kept."""
    return dict(
        theme=THEME, css_paths=CSS, footer_links=[], run_history=False, ssr_mode=False, show_error=False, share=False,
        enable_monitoring=False, state_session_capacity=200,
    )  # fmt: skip


if __name__ == "__main__":
    quiet()
    build().launch(**launched())
