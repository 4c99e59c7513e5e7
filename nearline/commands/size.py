"""`nearline size`: how much of everything a load needs."""

from typing import Any

import click

from nearline.commands._options import NumberRange

_POSITIVE = NumberRange(min=0, min_open=True)


@click.command()
@click.option("--posts-per-s", type=_POSITIVE, required=True, help="Posts that are created a second, at the peak.")
@click.option("--members", type=click.IntRange(min=0), required=True, help="Members with a profile or a history.")
@click.option("--activity-per-post", type=NumberRange(min=0), help="Views, likes and all else. Default: 100.")
@click.option("--positive-share", type=NumberRange(0, 1), help="Of these, what makes history. Default: 0.1.")
@click.option("--text-chars", type=click.IntRange(min=1), help="Characters of a post. Default: 310.")
@click.option("--tokens-per-context", type=_POSITIVE, help="Tokens that a context has for your package. Default: 63.")
@click.option("--tokens-per-s", type=_POSITIVE,
              help="Of one encode worker, such as a GPU, as `benchmarks.gpu` prints it. "
              "Default: a core with the demo's package.")  # fmt: skip
@click.option("--no-counts", is_flag=True, help="The package's template has no counts: a change of them costs nothing.")
@click.option("--dimension", type=click.IntRange(min=1), help="Numbers of a vector. Default: 128.")
@click.option("--corpus-days", type=_POSITIVE, help="For how long a post is to be found. Default: 30.")
@click.option("--hot-gb", type=_POSITIVE, help="Memory for the hot tier of a retriever. Default: 32.")
@click.option("--questions-per-s", type=NumberRange(min=0), help="Questions a second, at the peak.")
@click.option("--answers-per-s", type=_POSITIVE,
              help="Of one retriever process, as `benchmarks.service` measures it.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def size(*, no_counts: bool, as_json: bool, **options: Any) -> None:
    """Print how many partitions, workers and nodes, and how much memory and disk a load needs.

    By formulas from measured figures: docs/sizing.md has both. Every worker is planned for half of its rate. No GPU was
    measured, so give --tokens-per-s for one.

    \b
    Example:
      nearline size --posts-per-s 100 --members 1000000
      nearline size --posts-per-s 100 --members 1000000 --tokens-per-s 200000 --no-counts --json
    """
    from nearline.commands._terminal import print_json, print_table
    from nearline.sizing.limits import next_limits
    from nearline.sizing.page import rows
    from nearline.sizing.sizes import Load
    from nearline.sizing.sizes import size as sizes_of

    given = {name: value for name, value in options.items() if value is not None}
    load = Load(**given, counts_in_prompt=not no_counts)
    sizes = sizes_of(load)
    upcoming = next_limits(load)
    if as_json:
        print_json({**sizes._asdict(), "next_limits": [limit._asdict() for limit in upcoming]})
        return
    print_table(("", "needed"), [(name.replace("`", ""), value) for name, value in rows(load, sizes)])
    for limit in upcoming:
        click.echo(f"at {limit.posts_per_s:,.3g} posts/s: {limit.what}; {limit.mend}")
