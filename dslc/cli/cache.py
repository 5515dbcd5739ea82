"""`dslc cache`."""

from __future__ import annotations

from dataclasses import asdict

import click

from dslc.cli.output import json_option, print_json


@click.command("cache")
@click.argument("action", type=click.Choice(["stats", "clear"]), default="stats")
@json_option
def command(action: str, as_json: bool) -> None:
    """The cache of compiled code: what it holds, or empty it. DSLC_CACHE names another folder.

    Example: dslc cache clear
    """
    from dslc.api.figures import readable_bytes
    from dslc.options import from_environment
    from dslc.runtime.cache import Cache

    cache = Cache(from_environment().cache)
    if action == "clear":
        count = cache.clear()
        print_json({"removed": count}) if as_json else print(f"removed {count:,} entries from {cache.folder}")
        return
    stats = cache.stats()
    if as_json:
        print_json({k: v for k, v in asdict(stats).items() if k not in ("hits", "misses", "written")})
    elif stats.problem:
        print(f"there is no cache: {stats.problem}")
    else:
        print(f"{stats.folder}: {stats.entries:,} entries, {readable_bytes(stats.bytes)} of at most {readable_bytes(stats.limit)}")
