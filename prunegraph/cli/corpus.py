"""``prunegraph corpus``: real speech in one command."""

from pathlib import Path
from typing import Annotated

import typer

from prunegraph.cli.shell import note, output, print_json, working
from prunegraph.data.corpus import write_speaker_folder
from prunegraph.data.debian import load_debian_corpus
from prunegraph.errors import InputError


def corpus_command(
    folder: Annotated[Path, typer.Argument(help="New folder for the recordings.", show_default=False)],
    sample_rate: Annotated[int, typer.Option(min=1, help="Of the recordings, in Hz.")] = 8000,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Fetch four hours of recorded speech of eight people from Debian packages, as a folder of speakers."""
    with working():
        if folder.exists():
            raise InputError(f"{folder} exists already; give the name of a new folder")
        corpus = load_debian_corpus(sample_rate, progress=note)
        note(f"writing {len(corpus.clips)} recordings")
        write_speaker_folder(corpus, folder)
    if as_json:
        people, credits_ = list(corpus.people), list(corpus.credits)
        print_json({"folder": str(folder), "seconds": corpus.seconds, "people": people, "credits": credits_})
        return
    console = output()
    console.print(f"{folder}: {corpus.seconds / 60:.0f} minutes of {len(corpus.people)} people at {sample_rate} Hz")
    console.print("Name them where you show results: " + "; ".join(corpus.credits) + ".")
