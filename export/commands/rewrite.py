"""`pocketprior bench rewrite`: what rewriting graphs for deployment gains."""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help="such as dtpm-base-denoiser (default: all)")


def run(args: argparse.Namespace) -> int:
    """Measure the networks and print a page."""
    from ..bench.rewriting import rewriting_page

    print(rewriting_page(args.networks))
    return 0
