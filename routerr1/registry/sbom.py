"""The software bill of materials of a version, in CycloneDX: the policy and the packages that serve it."""

from collections.abc import Mapping, Sequence
from importlib import metadata

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_PACKAGE = "routerr1"


def sbom(model: str, version: str, files: Mapping[str, str]) -> str:
    """CycloneDX 1.6 as JSON, for a policy and every installed package that routerr1 requires.

    Args:
        model: name of the registered model.
        version: what identifies the policy, e.g. a git commit.
        files: sha256 of each file of the checkpoint, by name.
    """
    policy = Component(
        name=model,
        version=version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref="policy",
        components=[_file(name, digest) for name, digest in sorted(files.items())],
    )
    bom = Bom()
    bom.metadata.component = policy
    found = installed((_PACKAGE,))
    components = {name: _library(name, distribution) for name, (distribution, _) in found.items()}
    for component in components.values():
        bom.components.add(component)
    bom.register_dependency(policy, [components[_PACKAGE]])
    for name, (_, required) in found.items():
        bom.register_dependency(components[name], [components[each] for each in required])
    return str(JsonV1Dot6(bom).output_as_string(indent=2))


def _file(name: str, digest: str) -> Component:
    hashed = HashType(alg=HashAlgorithm.SHA_256, content=digest)
    return Component(name=name, type=ComponentType.FILE, bom_ref=f"policy/{name}", hashes=[hashed])


def _library(name: str, distribution: metadata.Distribution) -> Component:
    """A package with its licence, where its metadata states one in SPDX or in a short text."""
    about = distribution.metadata
    keys = [key for key in ("License-Expression", "License") if key in about]
    stated = about[keys[0]] if keys else ""
    short = stated if 0 < len(stated) <= 100 and "\n" not in stated else None
    return Component(
        name=about["Name"],
        version=distribution.version,
        type=ComponentType.LIBRARY,
        bom_ref=name,
        purl=PackageURL("pypi", name=name, version=distribution.version),
        licenses=[LicenseFactory().make_from_string(short)] if short else [],
    )


def installed(names: Sequence[str]) -> dict[str, tuple[metadata.Distribution, list[str]]]:
    """The installed distributions that `names` need, directly or not, each with its direct requirements.

    Markers and extras are honoured; a requirement that is not installed is left out.
    """
    found: dict[str, metadata.Distribution] = {}
    required: dict[str, set[str]] = {}
    waiting = [(canonicalize_name(name), frozenset[str]()) for name in names]
    done = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in done:
            continue
        done.add((name, extras))
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        for requirement in map(Requirement, found[name].requires or ()):
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": each}) for each in extras | {""}):
                other = canonicalize_name(requirement.name)
                required.setdefault(name, set()).add(other)
                waiting.append((other, frozenset(requirement.extras)))
    return {
        name: (found[name], sorted(required.get(name, set()) & found.keys()))
        for name in sorted(found)
    }
