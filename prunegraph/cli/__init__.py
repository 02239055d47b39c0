"""The command line: inspect, prune, finetune, evaluate, profile, verify, bench, corpus and plugins."""

from prunegraph.cli.bench import bench_command
from prunegraph.cli.commands import app
from prunegraph.cli.corpus import corpus_command
from prunegraph.cli.evaluate import evaluate_command
from prunegraph.cli.finetune import finetune
from prunegraph.cli.profile import profile_command

app.command()(finetune)
app.command("evaluate")(evaluate_command)
app.command("bench")(bench_command)
app.command("profile")(profile_command)
app.command("corpus")(corpus_command)

__all__ = ["app"]
