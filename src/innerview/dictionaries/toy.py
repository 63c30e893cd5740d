"""The toy model of superposition: activations whose features are known, to hold a dictionary against."""

import dataclasses
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor

from innerview.dictionaries.architectures.numbers import real, whole
from innerview.dictionaries.judging.assignment import assigned
from innerview.errors import DictionaryError


@dataclass(frozen=True, eq=False)
class Superposition:
    """Activations that are sums of known features.

    Features come in three kinds, in this order: parents, each followed at the end by its children, which are active only
    where it is; correlated ones, in groups; and the rest, independent.

    Attributes:
        activations: Shape [n_tokens, width].
        codes: How active each feature is at each token, mostly 0, shape [n_tokens, n_features].
        directions: A row of length 1 a feature, shape [n_features, width].
        parents: The parent of each feature, -1 for none, shape [n_features].
        groups: The correlated group of each feature, -1 for none, shape [n_features].
        chances: How often each feature is active, shape [n_features].
        correlation: Of the normal variables behind a group's features.
        is_exclusive: Whether features without a parent exclude one another.
        noise: Standard deviation of what is added to each activation.
    """

    activations: Float[Tensor, "n_tokens width"] = field(repr=False)
    codes: Float[Tensor, "n_tokens n_features"] = field(repr=False)
    directions: Float[Tensor, "n_features width"] = field(repr=False)
    parents: Int[Tensor, "n_features"] = field(repr=False)
    groups: Int[Tensor, "n_features"] = field(repr=False)
    chances: Float[Tensor, "n_features"] = field(repr=False)
    correlation: float
    is_exclusive: bool
    noise: float

    def matched(self, rows: Float[Tensor, "m width"]) -> tuple[Float[Tensor, "n_features"], Int[Tensor, "n_features"]]:
        """Cosine of each true direction with its partner among rows, such as a decoder's, and which row that is: one to one, the largest sum.

        Raises:
            DictionaryError: There are fewer rows than features.
        """
        if len(rows) < len(self.directions):
            raise DictionaryError(
                f"{len(rows)} rows are fewer than the {len(self.directions)} features; none stays alone"
            )
        found = torch.nn.functional.normalize(rows.detach().float().cpu(), dim=-1)
        cosines = self.directions @ found.T
        partners = torch.from_numpy(assigned(cosines.numpy()))
        return cosines.gather(1, partners[:, None])[:, 0], partners

    def more(self, n_tokens: int, seed: int) -> "Superposition":
        """Other tokens of the same features."""
        drawn = torch.Generator().manual_seed(seed)
        codes = _codes(self, whole("n_tokens", n_tokens), drawn)
        noise = self.noise * torch.randn(n_tokens, self.directions.shape[1], generator=drawn)
        return dataclasses.replace(self, activations=codes @ self.directions + noise, codes=codes)


def toy_superposition(
    n_tokens: int = 10_000,
    n_features: int = 64,
    width: int = 32,
    *,
    active: float = 4.0,
    families: int = 4,
    children: int = 3,
    groups: int = 4,
    group_size: int = 4,
    correlation: float = 0.5,
    is_exclusive: bool = False,
    sibling_cosine: float = 0.0,
    noise: float = 0.0,
    seed: int = 0,
) -> Superposition:
    """The toy model of superposition: more features than dimensions, some correlated, some in hierarchies.

    Args:
        n_tokens: Tokens.
        n_features: Features.
        width: Dimensions.
        active: Features that are active at a token, on average.
        families: Parents.
        children: Children of each; a parent's children exclude one another, and are active at half its tokens.
        groups: Groups of correlated features.
        group_size: Features of each.
        correlation: Of the normal variables whose size says whether a group's features are active.
        is_exclusive: Whether at most one feature without a parent is active at a token, and its child; correlations have no part then.
        sibling_cosine: Cosine of the children of one parent; all other directions are random.
        noise: Standard deviation of the noise in each dimension.
        seed: Of directions and tokens; `.more` draws other tokens.
    Raises:
        DictionaryError: A number is out of its range, or there are fewer features than families and groups need.
    Reference: arXiv:2309.08600, arXiv:2209.10652; hierarchies as in arXiv:2506.03093.
    """
    for name, number in (("n_features", n_features), ("width", width)):
        whole(name, number)
    for name, number in (
        ("families", families),
        ("children", children),
        ("groups", groups),
        ("group_size", group_size),
    ):
        whole(name, number, 0)
    for name, number in (("correlation", correlation), ("sibling_cosine", sibling_cosine)):
        if not 0 <= real(name, number) < 1:
            raise DictionaryError(f"{name} is from 0 to below 1, not {number!r}")
    real("active", active)
    real("noise", noise)
    kin, together = families * (1 + children), groups * group_size
    if kin + together > n_features:
        raise DictionaryError(
            f"{families} families of {1 + children} and {groups} groups of {group_size} are {kin + together} features, more than {n_features}"
        )
    parents = torch.full((n_features,), -1)
    parents[families:kin] = torch.arange(families).repeat_interleave(children)
    member = torch.full((n_features,), -1)
    member[kin : kin + together] = torch.arange(groups).repeat_interleave(group_size)
    drawn = torch.Generator().manual_seed(seed)
    directions = _directions(parents, width, sibling_cosine, drawn)
    chances = _chances(parents, active, children, 1.0 if is_exclusive else 0.5)
    none, no_codes = torch.zeros(0, width), torch.zeros(0, n_features)
    world = Superposition(none, no_codes, directions, parents, member, chances, correlation, is_exclusive, noise)
    return world.more(n_tokens, int(torch.randint(1 << 40, (), generator=drawn)))


def _directions(parents: Tensor, width: int, cosine: float, drawn: torch.Generator) -> Tensor:
    random = torch.nn.functional.normalize(torch.randn(len(parents), width, generator=drawn), dim=-1)
    shared = torch.nn.functional.normalize(torch.randn(len(parents), width, generator=drawn), dim=-1)
    is_child = (parents >= 0)[:, None]
    mixed = cosine**0.5 * shared[parents.clamp_min(0)] + (1 - cosine) ** 0.5 * random
    return torch.nn.functional.normalize(torch.where(is_child, mixed, random), dim=-1)


def _chances(parents: Tensor, active: float, children: int, most: float) -> Tensor:
    """How often each is active: falling slowly from feature to feature, a child a share of its parent's half."""
    has_parent = parents >= 0
    falling = torch.logspace(0, -0.5, len(parents)) * ~has_parent
    is_parent = torch.zeros_like(has_parent)
    is_parent[parents[has_parent]] = True
    # A parent brings half a child with it, on average.
    chances = active * falling / (falling * (1 + 0.5 * is_parent)).sum()
    if float(chances.sum() if most == 1.0 else chances.max()) > most:
        raise DictionaryError(f"{active:g} active features of {len(parents)} are too many for sparse codes; take fewer")
    return torch.where(has_parent, chances[parents.clamp_min(0)] / (2 * max(children, 1)), chances)


def _codes(world: Superposition, n_tokens: int, drawn: torch.Generator) -> Tensor:
    parents, chances = world.parents, world.chances
    is_active = (_alone if world.is_exclusive else _together)(world, n_tokens, drawn) & (parents < 0)
    for parent in parents[parents >= 0].unique().tolist():
        own_children = (parents == parent).nonzero()[:, 0]
        # Half of the parent's tokens have one child, each as often.
        which = (torch.rand(n_tokens, generator=drawn) * 2 * len(own_children)).long()
        for place, child in enumerate(own_children.tolist()):
            is_active[:, child] = is_active[:, parent] & (which == place)
    return is_active * (0.5 + torch.rand(n_tokens, len(chances), generator=drawn))


def _together(world: Superposition, n_tokens: int, drawn: torch.Generator) -> Tensor:
    """Which are active, those of a group often at the same tokens."""
    own = torch.randn(n_tokens, len(world.chances), generator=drawn)
    shared = torch.randn(n_tokens, int(world.groups.max()) + 2, generator=drawn)
    joined = world.correlation**0.5 * shared[:, world.groups] + (1 - world.correlation) ** 0.5 * own
    normal = torch.where(world.groups >= 0, joined, own)
    return normal > torch.special.ndtri(1 - world.chances.double()).float()


def _alone(world: Superposition, n_tokens: int, drawn: torch.Generator) -> Tensor:
    """Which are active, one at most of those without a parent."""
    ends = (world.chances * (world.parents < 0)).cumsum(0)
    which = torch.searchsorted(ends, torch.rand(n_tokens, generator=drawn), right=True)
    return which[:, None] == torch.arange(len(ends))
