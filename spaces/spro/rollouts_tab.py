"""The tab that looks into a data set of rollouts: which one, which of its captions, and all that is known of that."""

from __future__ import annotations

from typing import Any

import explorer
import gradio as gr
import looks
import sources

ANY = "any"


def use_rollouts(source: str) -> list[Any]:
    """Open a data set: message, its parts, and what ``use_part`` gives of the first."""
    source = (source or "").strip()
    try:
        files = sources.rollouts(source)
    except Exception as error:
        return [looks.problem(error), *[gr.skip()] * 6]
    part = gr.update(choices=files, value=files[0], visible=len(files) > 1)
    line, *rest = use_part(source, files[0])
    if line:
        return [line, gr.skip(), gr.skip(), *rest]
    # the list above does not name what a visitor names
    hint = "" if source in sources.offered("rollouts") else looks.message(f"{source} is open.", "hint")
    return [hint, source, part, *rest]


def use_part(source: str, file: str) -> list[Any]:
    """Message, reasons, seeds, place and picture of a file of the data set."""
    try:
        _, rows = explorer.rows(source, file)
    except Exception as error:
        return [looks.problem(error), *[gr.skip()] * 4]
    counts = explorer.reasons(rows)
    whys = [(f"any ({len(rows)})", ANY), *((f"{why} ({count})", why) for why, count in counts.items())]
    return ["", gr.update(choices=whys, value=ANY), *filtered(source, file, ANY)]


def filtered(source: str, file: str, why: str) -> list[Any]:
    """Seeds with a candidate of this reason, which of them is shown, and the first."""
    try:
        seeds = explorer.seeds(explorer.rows(source, file)[1], None if why == ANY else why)
        first = next(iter(seeds))
    except Exception as error:
        return [gr.skip(), gr.skip(), looks.problem(error)]
    names = [(f"{caption} · {seed}", seed) for seed, caption in seeds.items()]
    return [gr.update(choices=names, value=first), *looked(source, file, why, first)]


def looked(source: str, file: str, why: str, seed: str) -> list[Any]:
    """Which of how many, and the seed itself."""
    try:
        only = None if why == ANY else why
        order = list(explorer.seeds(explorer.rows(source, file)[1], only))
        place = f'<p class="place" role="status">{order.index(seed) + 1} of {len(order)}</p>'
        return [place, looks.seed(explorer.look(source, file, seed), only)]
    except Exception as error:
        return [gr.skip(), looks.problem(error)]


def moved(source: str, file: str, why: str, seed: str, by: int) -> list[Any]:
    """The seed before or behind, as ``looked`` shows it; at an end it stays."""
    try:
        order = list(explorer.seeds(explorer.rows(source, file)[1], None if why == ANY else why))
        seed = order[min(max(order.index(seed) + by, 0), len(order) - 1)]
    except Exception as error:
        return [gr.skip(), gr.skip(), looks.problem(error)]
    return [seed, *looked(source, file, why, seed)]


def tab(demo: gr.Blocks) -> None:
    """Lay the tab out; it is filled when the page is opened."""
    choices = sources.offered("rollouts")
    current = gr.State(choices[0])
    with gr.Row(elem_classes="settings"):
        chosen = gr.Dropdown(choices, value=choices[0], label="Rollouts", elem_id="rollouts", min_width=160)
        file = gr.Dropdown([], label="Part", visible=False, elem_id="part", min_width=160)
        why = gr.Dropdown([(ANY, ANY)], value=ANY, label="Kept or dropped", elem_id="why", min_width=220)
    with gr.Row(elem_classes="settings"):
        seed = gr.Dropdown([], label="Caption", elem_id="which", scale=4, min_width=240)
        before = gr.Button("← Previous", elem_id="previous", scale=1, min_width=110, size="md")
        behind = gr.Button("Next →", elem_id="next", scale=1, min_width=110, size="md")
    message, place, page = gr.HTML(elem_id="rollouts-message"), gr.HTML(elem_id="place"), gr.HTML(elem_id="page")
    with gr.Accordion("Other rollouts of the Hub", open=False, elem_id="another-rollouts"):
        name = gr.Textbox(
            label="Data set id", info="Public rollouts as user/repo or user/repo@tag", elem_id="rollouts-id"
        )
        use = gr.Button("Open them", elem_id="use-rollouts", size="md")
    at, shown = [current, file, why], [seed, place, page]
    opened = dict(
        fn=use_rollouts, outputs=[message, current, file, why, *shown], api_visibility="private", show_progress_on=page,
        concurrency_limit=2, concurrency_id="rollouts",
    )  # fmt: skip
    gr.on([demo.load, chosen.input], inputs=chosen, **opened)
    gr.on([use.click, name.submit], inputs=name, **opened)
    quick = dict(api_visibility="private", show_progress="hidden", concurrency_limit=2, concurrency_id="rollouts")
    file.input(use_part, [current, file], [message, why, *shown], **quick)
    why.input(filtered, at, shown, **quick)
    seed.input(looked, [*at, seed], [place, page], **quick)
    for button, by in ((before, -1), (behind, 1)):
        button.click(moved, [*at, seed, gr.State(by)], shown, **quick)
