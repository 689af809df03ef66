"""`horae config`: profiles, so that commands find the address and the key of a cluster by name."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ops.commands.completion import complete_profiles
from ops.support.formats import Listing, listing_options
from ops.support.profiles import Profile, Profiles, checked_address, load_profiles, save_profiles


@click.group("config")
def config_group() -> None:
    """Keep the addresses and key files of clusters as profiles, and choose the one that commands use.

    --url and HORAE_URL come first, then HORAE_PROFILE, then the profile in use, then HOST and PORT. A profile's key is
    sent to the profile's own address only; HORAE_API_KEY replaces it.
    """


@config_group.command("set")
@click.argument("name", shell_complete=complete_profiles)
@click.option("--url", required=True, help="Address of the API, such as https://horae.example.org.")
@click.option("--key-file", type=click.Path(dir_okay=False), help="File that holds the API key.")
def set_command(name: str, url: str, key_file: str | None) -> None:
    """Make or replace the profile NAME."""
    if not name.strip() or not name.isprintable():
        raise click.BadParameter("the name of a profile must be a word that can be read")
    if "@" in checked_address(url).netloc:
        raise click.BadParameter("must not contain a user or password; put the API key into a --key-file")
    known = load_profiles()
    path = None if key_file is None else str(Path(key_file).expanduser().absolute())
    save_profiles(Profiles(known.current, {**known.profiles, name: Profile(name, url, path)}))
    click.echo(f"profile {name}: {url}")
    if path is not None:
        _warn(load_profiles().named(name))


@config_group.command("use")
@click.argument("name", required=False, shell_complete=complete_profiles)
@click.option("--none", "no_profile", is_flag=True, help="Use no profile: HOST and PORT count again.")
def use_command(name: str | None, no_profile: bool) -> None:  # noqa: FBT001
    """Let commands use the profile NAME."""
    if (name is None) != no_profile:
        raise click.UsageError("give the name of a profile, or --none")
    known = load_profiles()
    url = "no profile" if name is None else f"{name}: {known.named(name).url}"
    save_profiles(Profiles(name, known.profiles))
    click.echo(f"in use: {url}")
    first = [n for n in ("HORAE_URL", "HORAE_PROFILE") if os.environ.get(n)]
    if first:
        click.echo(f"{' and '.join(first)} of this shell come first: unset them for this to count", err=True)
    elif name is not None:
        _warn(known.named(name))


def _warn(profile: Profile) -> None:
    """Say now what is wrong with the key file; the profile stays as it is wanted."""
    try:
        profile.key()
    except click.UsageError as exc:
        click.echo(exc.message, err=True)


@config_group.command("remove")
@click.argument("name", shell_complete=complete_profiles)
def remove_command(name: str) -> None:
    """Remove the profile NAME. Its key file stays."""
    known = load_profiles()
    known.named(name)
    left = {n: p for n, p in known.profiles.items() if n != name}
    save_profiles(Profiles(None if known.current == name else known.current, left))
    click.echo(f"removed: {name}")


@config_group.command("list")
@listing_options
def list_command(listing: Listing) -> None:
    """List the profiles; the one in use has a star."""
    known = load_profiles()
    rows = [
        {"name": p.name, "url": p.url, "keyFile": p.key_file, "inUse": p.name == known.current}
        for p in known.profiles.values()
    ]
    listing.show(
        rows,
        title=f"{len(rows)} profile(s)",
        name="name",
        columns={
            "": lambda r: "*" if r["inUse"] else "",
            "profile": lambda r: r["name"],
            "url": lambda r: r["url"],
            "key file": lambda r: r["keyFile"],
        },
    )
