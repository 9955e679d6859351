"""One folder with everything that a room without a network needs, for a USB stick or a file server.

    make classroom-bundle PROFILE=laptop                  # once, online: writes classroom-bundle/
    make install-from-bundle BUNDLE=/media/stick/classroom-bundle     # on each laptop, in the bundle's folder `course`

The bundle holds `course` (this project), `hub` (models and data sets of the profile at their revisions, and
classroom.toml, the profile with local paths), `wheels` (packages for the system it was made on), `site` (if `make site`
has built it: it needs no network) and checksums.sha256.
Stopped on the way? The same command goes on. For laptops of another system run it there once more with the same
BUNDLE: only wheels are added. `--wheels none` leaves them out.

The install checks every checksum and names each damaged file; what no checksum names is not used. It needs nothing but
Python 3.11 or newer.
"""

import sys

if sys.version_info < (3, 11):  # noqa: UP036
    sys.exit("Python 3.11 or newer is needed, and this is {}.{}: name another one".format(*sys.version_info[:2]))

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from bundle_checksums import CHECKSUMS, BundleError, every_file, format_list, read_list, write_whole, wrong

ROOT = Path(__file__).resolve().parent.parent
INSTALLED = ".from-a-bundle.sha256"  # in the folder `classroom`: what the install put there


def damaged(bundle: Path) -> list[str]:
    """What differs from its checksum or is not there, one sentence a file, in the order of the list.

    Raises:
        BundleError: there are no checksums, or they are no whole list.
    """
    return [
        problem for name, digest in read_list(bundle / CHECKSUMS).items() if (problem := wrong(bundle, name, digest))
    ]


def install(bundle: Path, course: Path) -> None:
    """Checks a bundle and sets up the course from it: environment, models, data. Nothing is asked of a network.

    Raises:
        BundleError: the bundle is not whole, or something of somebody else's is in the way. Nothing was changed then.
    """
    begin = time.perf_counter()
    if not bundle.is_dir():
        what = "is a file; name the bundle's folder" if bundle.exists() else "does not exist: correct the path"
        raise BundleError(f"{bundle} {what}")
    if course.is_relative_to(bundle):
        raise BundleError(f"{course} lies in the bundle: copy the folder `course` to this laptop, and run this there")
    digests = read_list(bundle / CHECKSUMS)
    if "hub/classroom.toml" not in digests:
        raise BundleError(f"{bundle} has no hub/classroom.toml: make it again")
    others = sorted(set(every_file(bundle / "wheels")) - {name.removeprefix("wheels/") for name in digests})
    if others:  # pip would choose among all that lies there
        raise BundleError(f"{bundle}: no checksum names wheels/{others[0]}: remove it, or make the bundle again")
    replace = made_here(course / "classroom")
    for left in course.glob("classroom.*.partial"):
        print(f"{left} is left from an install that was stopped; nothing needs it any more")
    with tempfile.TemporaryDirectory(prefix="classroom.", suffix=".partial", dir=course) as folder:
        new = Path(folder) / "new"
        copy_checked(bundle, digests, new)
        if replace:
            (course / "classroom").rename(Path(folder) / "old")
        new.rename(course / "classroom")
    if any(name.startswith("wheels/") for name in digests):
        install_packages(bundle, course)
    print(f"installed in {time.perf_counter() - begin:.0f} s; start with")
    print("  FINETUNING_PROFILE=classroom/classroom.toml make lab")
    if (site := course / "classroom" / "site" / "index.html").exists():
        print(f"the course's site: {site.as_uri()}")


def copy_checked(bundle: Path, digests: dict[str, str], target: Path) -> None:
    """Checks every file of the list, and copies those below `hub`, and the site.

    Raises:
        BundleError: it names each file that is not what the list says.
    """
    problems, copied = [], {}
    for name, digest in digests.items():
        problem = wrong(bundle, name, digest)
        if not problem and name.startswith(("hub/", "site/")):
            short = name.removeprefix("hub/")
            (target / short).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle / name, target / short)
            problem = wrong(target, short, digest) and f"{name} cannot be read the same way twice"
            copied[name] = digest
        problems += [f"  {problem}"] if problem else []
    if problems:
        listed = "\n".join(problems)
        raise BundleError(f"{bundle}: copy it again, or make it again, for\n{listed}")
    write_whole(target / INSTALLED, format_list(copied).encode())


def made_here(folder: Path) -> bool:
    """Whether a folder `classroom` is there that an install made and nobody changed since.

    Raises:
        BundleError: a file or folder of that name holds something else.
    """
    if not os.path.lexists(folder):
        return False
    if folder.is_symlink() or not (folder / INSTALLED).is_file():
        raise BundleError(f"{folder} was not made from a bundle: give it another name, and run this again")
    digests = {name.removeprefix("hub/"): digest for name, digest in read_list(folder / INSTALLED).items()}
    for name in every_file(folder):
        if name != INSTALLED and (name not in digests or wrong(folder, name, digests[name])):
            raise BundleError(
                f"{folder / name} was added or changed since the install, and would be lost: give the folder "
                f"{folder.name} another name, and run this again"
            )
    return True


def install_packages(bundle: Path, course: Path) -> None:
    """Makes .venv and installs the bundle's wheels into it."""
    environment = course / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = environment / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    pip = [str(python), "-m", "pip", "install", "--no-index", "--find-links", str((bundle / "wheels").resolve())]
    for words in (["pip"], ["--group", "full-finetuning", "-e", "."]):
        if subprocess.run([*pip, "-c", "constraints.txt", *words], cwd=course).returncode:
            raise BundleError(
                "pip could not install from the bundle's wheels (its message is above). They are for the system and "
                f"Python that made them, and this is {sys.platform} with Python {sys.version_info[0]}."
                f"{sys.version_info[1]}: run `make classroom-bundle` with the same BUNDLE on such a machine, too"
            )
    (environment / ".full-finetuning-installed").touch()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make")
    making.add_argument("bundle", type=Path)
    making.add_argument("--profile", default="laptop", help="name or TOML file")
    making.add_argument("--wheels", choices=["here", "none"], default="here")
    installing = commands.add_parser("install")
    installing.add_argument("bundle", type=Path)
    installing.add_argument("--course", type=Path, default=ROOT, help="the folder to set up; default: this one")
    options = parser.parse_args(arguments)
    try:
        if options.command == "make":
            from bundle_making import make  # needs the installed course, and the install needs Python alone

            make(options.bundle, options.profile, options.wheels)
        else:
            install(options.bundle.resolve(), options.course.resolve())
    except BundleError as error:
        print(f"classroom_bundle.py: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"classroom_bundle.py: {error.filename or options.bundle}: {error.strerror or error}", file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        print(f"classroom_bundle.py: failed with status {error.returncode}: {' '.join(error.cmd)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("classroom_bundle.py: stopped; the same command goes on", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
