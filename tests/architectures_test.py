"""Descriptions against the layer counts of the papers; errors; an architecture of one's own."""

import pytest
from whole_runs import result, small

from kip_flax import architectures as arch
from kip_flax import config as config_lib
from kip_flax.modes.evaluate.mode import evaluate_file
from kip_flax.modes.export_set.mode import export_file
from kip_flax.modes.train.mode import train_and_evaluate
from kip_flax.modes.transfer.mode import transfer_file
from kip_flax.runtime.errors import UserError


def count(spec, kind):
    return sum(isinstance(layer, kind) for layer in spec)


@pytest.mark.parametrize(
    ("name", "depth", "convs", "pools", "denses", "relus"),
    [
        ("fc", 1, 0, 0, 2, 1),
        ("fc", 3, 0, 0, 4, 3),
        ("conv", 3, 3, 0, 1, 3),
        ("convnet", 3, 4, 3, 1, 4),
        ("convnet_plain", 3, 3, 3, 1, 3),
        ("myrtle", 5, 4, 2, 1, 4),
        ("myrtle", 7, 6, 2, 1, 6),
        ("myrtle", 10, 9, 2, 1, 9),
    ],
)
def test_layers(name, depth, convs, pools, denses, relus):
    spec = arch.build(name, depth)
    assert count(spec, arch.Conv) == convs
    assert count(spec, arch.AvgPool) == pools
    assert count(spec, arch.Dense) == denses
    assert count(spec, arch.Relu) == relus
    assert count(spec, arch.Flatten) + count(spec, arch.GlobalAvgPool) == 1
    assert isinstance(spec[-1], arch.Dense)


def test_convnet_is_written_out():
    pooled = (arch.Conv(3), arch.Relu(), arch.AvgPool(2))
    head = (arch.Flatten(), arch.Dense())
    assert arch.convnet(2) == (arch.Conv(3), arch.Relu(), *pooled, *pooled, *head)
    assert arch.convnet(2, prepend_conv=False) == arch.convnet_plain(2) == (*pooled, *pooled, *head)


def test_myrtle_pools_globally_and_only_between_its_blocks():
    spec = arch.myrtle(7)
    assert spec[-2:] == (arch.GlobalAvgPool(), arch.Dense())
    pools = [i for i, layer in enumerate(spec) if isinstance(layer, arch.AvgPool)]
    convs = [count(spec[a:b], arch.Conv) for a, b in zip([0, *pools], [*pools, None], strict=True)]
    assert convs == [2, 2, 2]  # One more than its block of 1 at the front; then blocks of 2, 2.


def test_spatial_sizes_drop_what_pools_leave_over():
    spec = arch.convnet(3)
    at_pools = [
        size
        for layer, size in zip(spec, arch.spatial_sizes(spec, 28, 31), strict=True)
        if isinstance(layer, arch.AvgPool | arch.Flatten | arch.Dense)
    ]
    assert at_pools == [(28, 31), (14, 15), (7, 7), (3, 3), (1, 1)]


@pytest.mark.parametrize(("height", "width"), [(7, 8), (8, 7), (1, 1)])
def test_images_too_small_for_the_pools(height, width):
    with pytest.raises(UserError, match=f"{height}x{width} pixels are too small for 3 pooling"):
        arch.spatial_sizes(arch.convnet(3), height, width)
    arch.spatial_sizes(arch.convnet(3), 8, 8)


@pytest.mark.parametrize("wrong", [{"size": 2}, {"size": 0}, {"size": -1}, {"stride": 0}])
def test_convolutions_have_a_centre(wrong):
    with pytest.raises(UserError, match="sizes are odd and above 0, strides above 0"):
        arch.Conv(**wrong)
    with pytest.raises(UserError, match=r"AvgPool\(size=0\)"):
        arch.AvgPool(0)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'resnet'.*fc, conv, convnet, convnet_plain, myrtle"):
        arch.build("resnet", 3)


@pytest.mark.parametrize("name", ["fc", "conv", "convnet", "convnet_plain"])
@pytest.mark.parametrize("depth", [0, -1])
def test_depth_is_at_least_one(name, depth):
    with pytest.raises(UserError, match=f"depth of at least 1, not {depth}"):
        arch.build(name, depth)


def test_myrtle_has_three_depths():
    with pytest.raises(UserError, match="5, 7 or 10, not 6"):
        arch.build("myrtle", 6)


@pytest.mark.parametrize(
    ("name", "depth", "published"),
    [
        ("fc", 1, "FC1"),
        ("conv", 3, "Conv3"),
        ("convnet", 3, "ConvNet"),
        ("convnet", 2, "ConvNetPre2"),
        ("convnet_plain", 3, "ConvNet3"),
        ("myrtle", 10, "Myrtle10"),
        ("gan", 3, "Gan3"),
        ("mine.no_such_net", 2, "NoSuchNet2"),
    ],
)
def test_published_names(name, depth, published):
    assert arch.published_name(name, depth) == published


TINY = """
from kip_flax.architectures import Dense, Flatten, Relu


def build(depth):
    return (Flatten(), *((Dense(), Relu()) * depth), Dense())
"""


def test_an_architecture_may_say_how_it_is_published(own_module):
    assert arch.published_name(own_module("tiny_net", TINY), 2) == "TinyNet2"
    named = own_module("named", TINY + 'published_name = "Tiny{}".format\n')
    assert arch.published_name(named, 2) == "Tiny2"


def test_mistakes_in_naming_an_architecture_are_reported(own_module):
    known = "fc, conv, convnet, convnet_plain, myrtle"
    for name in ("resnet", "mine.none"):
        with pytest.raises(UserError, match=f"{name}'.*{known}, or a module of your own"):
            config_lib.validate(small(kernel__architecture=name))
    with pytest.raises(UserError, match=r"'mine\.nothing', which has no build"):
        arch.build(own_module("nothing", ""), 1)
    for network in ("mine.none:1", "krr:mine.none:1"):
        with pytest.raises(UserError, match=r"'mine\.none'"):
            config_lib.validate(small(transfer__networks=(network,)))


@pytest.mark.slow
def test_an_architecture_of_ones_own_distils_exports_evaluates_and_transfers(own_module, tmp_path):
    """One file; as it is an FC in other words, all comes out as with `fc`."""
    name = own_module("tiny_net", TINY)

    def configured(name):
        config = small(
            kernel__architecture=name,
            kernel__implementation="xla",
            num_steps=2,
            eval__steps=(),
            transfer__networks=("krr", "kernel", f"{name}:2", f"krr:{name}:2"),
            transfer__recipe="kip",
            transfer__width=64,
            transfer__num_steps=100,
            transfer__every_steps=50,
            transfer__seeds=2,
            transfer__lr_factor=(0.3,),
            transfer__l2=(0.0,),
            transfer__ntk_inputs=10,
            transfer__baselines=(),
        )
        config_lib.validate(config)
        return config

    accuracies = {}
    for kind, stem in ((name, "TinyNet1"), ("fc", "FC1")):
        config, folder = configured(kind), tmp_path / stem
        train_and_evaluate(config, str(folder))
        path = folder / "distilled" / f"{stem}_ssize10_nozca_l_noaug_ckpt2.npz"
        last = result(folder)["evaluations"][-1]
        assert evaluate_file(config, str(path))["accuracy"] == last["accuracy"] > 0.5
        export_file(str(path), str(folder / "exported"))
        assert stem in (folder / "exported" / "README.md").read_text()
        rows = transfer_file(config, str(path), str(folder / "transfer"))
        accuracies[kind] = [row["mean"] for row in rows]
        assert min(accuracies[kind]) > 0.2  # Chance is 0.1.
    assert accuracies[name] == accuracies["fc"]
