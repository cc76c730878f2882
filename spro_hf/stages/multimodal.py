"""SPRO-MM: the trained guider with the trained generator, and by choice their co-evolution (SPRO, stage 3).

The paper puts both together and trains nothing more. ``rounds`` above 0 departs from it: in each further round the
guider plays against the newest generator, and the generator then learns the pictures of that round's winners.
"""

from __future__ import annotations

from spro_hf import parallel
from spro_hf.memory import free
from spro_hf.models import pinned
from spro_hf.schema import MultimodalRecipe
from spro_hf.stages import image, publish
from spro_hf.stages.room import Room
from spro_hf.stages.rounds import advance_seats, play, seat_all
from spro_hf.stages.showcase import Showcase, seeds_of, shown_by
from spro_hf.stages.studio import Studio, open_environment, open_guider


def run(room: Room) -> None:
    """Co-evolve for the recipe's rounds, then publish guider and generator together as an SPROPipeline under ``v1``."""
    recipe: MultimodalRecipe = room.recipe
    adapter = recipe.guider.adapter
    guider, name = open_guider(recipe.guider), pinned(adapter.repo, adapter.revision)
    environment, seats = open_environment(recipe.generator), seat_all(room) if recipe.rounds else []
    newest, played, learned = publish.inputs(room), [], []
    # without rounds nothing is scored
    studio = Studio(recipe, environment, recipe.select, newest["generator"].pinned) if recipe.rounds else None
    show = Showcase(room, seeds_of(room) if recipe.rounds else shown_by(adapter.repo, adapter.revision))
    show.before(lambda: environment)
    for step in range(recipe.rounds):
        number = recipe.first_round + step
        folder = play(room, number, seats, studio, guider, name)
        del guider  # there is room for one
        free()
        guider = open_guider(recipe.guider, str(folder / "guider"))
        show.draw(f"round-{number}", lambda studio=studio: studio.environment, lambda guider=guider: guider)
        shown = show.score(f"round-{number}", lambda studio=studio: studio)
        made = publish.by_first(lambda told=(number, folder, shown, played): publish.round(room, *told))
        name, learned = made["guider"].pinned, [made["rollouts"]]
        advance_seats(seats, folder / "rollouts", recipe.carry)
        tuned, pictures, steps = image.train(room, f"generator-v{step + 2}", environment, [folder / "rollouts"])
        del environment
        studio.environment = None
        free()
        environment, tag = open_environment(recipe.generator, str(tuned / "generator")), f"v{step + 2}"
        studio = studio.at(environment)
        show.draw(tag, lambda found=environment: found)
        shown = show.score(tag, lambda studio=studio: studio)
        generator = publish.by_first(
            lambda told=(tag, tuned, pictures, steps, shown, [*learned, *played[1:]]): publish.generator(room, *told)
        )
        newest = {"guider": made["guider"], "generator": generator}
        played = list(newest.values())
        studio = studio.at(environment, generator.pinned)
    show.draw("v1", lambda: environment, lambda: guider)
    if not studio:  # no scorer was there so far, and there may be no room for one beside these
        guider = environment = None
        free()
    shown = show.score("v1", lambda: studio or Studio(recipe))
    if not studio:
        guider, environment = open_guider(recipe.guider), open_environment(recipe.generator)
    if parallel.first():
        publish.pipeline(room, "v1", newest, learned, guider, environment.pipe, shown)
