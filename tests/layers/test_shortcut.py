import math

import pytest
import torch

from backbones.layers import ConvNormAct, WeightedShortcut, effective_weights, weighted_sum

WEIGHTED = [(kind, norm) for kind in ("per_feature", "per_channel") for norm in ("relu", "softmax")]
CHANNELS = {4: (10, 5, 12, 8), 6: (10, 10), 8: (6, 10, 8)}
ACTS = {4: "linear", 6: "mish", 8: "leaky"}


def run_recorded_network(run, weights_type, normalization, *, floor=1e-3, kind="param"):
    """Run the nine layers of the ws_* cfg; return every output."""

    def conv(index, x, width, kernel, act):
        unit = ConvNormAct(x.shape[1], width, kernel=kernel, act=act).eval()
        run.fill(unit, index)
        return unit(x)

    def shortcut(index, *inputs):
        layer = WeightedShortcut(
            CHANNELS[index],
            weights_type=weights_type,
            normalization=normalization,
            act=ACTS[index],
            floor=floor,
        )
        if layer.weight is not None:
            layer.load_state_dict({"weight": run.layer(index, kind)["weights"]})
        return layer(*inputs)

    out = [conv(0, run["input"], 8, 3, "mish")]
    out.append(conv(1, out[0], 12, 3, "leaky"))
    out.append(conv(2, out[1], 5, 1, "linear"))
    out.append(conv(3, out[2], 10, 3, "mish"))
    out.append(shortcut(4, out[3], out[2], out[1], out[0]))
    out.append(conv(5, out[4], 10, 1, "linear"))
    out.append(shortcut(6, out[5], out[4]))
    out.append(conv(7, out[6], 6, 1, "swish"))
    out.append(shortcut(8, out[7], out[6], out[0]))
    return out


def assert_recorded(run, outputs, close_to_scale):
    for index, output in enumerate(outputs):
        close_to_scale(output, run[f"out/{index:03d}"])


@torch.no_grad()
def test_a_plain_sum_matches_darknet(recorded, close_to_scale):
    run = recorded("ws_none_none")
    assert_recorded(run, run_recorded_network(run, "none", "none"), close_to_scale)


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
@torch.no_grad()
def test_weights_of_either_sign_match_darknets_cpu_with_a_floor_of_zero(
    recorded, close_to_scale, weights_type, normalization
):
    run = recorded(f"ws_{weights_type}_{normalization}")
    outputs = run_recorded_network(run, weights_type, normalization, floor=0.0)
    assert_recorded(run, outputs, close_to_scale)


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
@torch.no_grad()
def test_positive_weights_match_darknet(recorded, close_to_scale, weights_type, normalization):
    run = recorded(f"ws_{weights_type}_{normalization}_pos")
    assert_recorded(run, run_recorded_network(run, weights_type, normalization), close_to_scale)


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
@torch.no_grad()
def test_raw_weights_match_the_folded_network_of_darknet(recorded, close_to_scale, weights_type, normalization):
    run = recorded(f"ws_{weights_type}_{normalization}_fused")
    assert_recorded(run, run_recorded_network(run, weights_type, normalization), close_to_scale)


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
@torch.no_grad()
def test_folded_weights_without_normalization_match_the_folded_network(
    recorded, close_to_scale, weights_type, normalization
):
    run = recorded(f"ws_{weights_type}_{normalization}_fused")
    outputs = run_recorded_network(run, weights_type, "none", kind="fused")
    assert_recorded(run, outputs, close_to_scale)


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
@pytest.mark.parametrize("layer", CHANNELS)
def test_effective_weights_are_what_darknet_folds(recorded, weights_type, normalization, layer):
    run = recorded(f"ws_{weights_type}_{normalization}_fused")
    shares = effective_weights(run.layer(layer)["weights"], normalization)
    torch.testing.assert_close(shares, run.layer(layer, "fused")["weights"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("normalization", ["relu", "softmax"])
def test_a_fresh_shortcut_is_the_mean_up_to_epsilon(normalization):
    layer = WeightedShortcut((4, 4, 4), weights_type="per_feature", normalization=normalization)
    total = 3.0  # relu: three weights of 1; softmax: three times exp(0)
    torch.testing.assert_close(layer.effective_weights(), torch.full((3, 1), 1 / (total + 1e-4)))


def test_a_floor_of_zero_lets_a_shortcut_die_and_the_default_keeps_it_alive():
    weight = torch.tensor([[-1.0], [-2.0]])
    assert effective_weights(weight, "relu", floor=0.0).tolist() == [[0.0], [0.0]]
    torch.testing.assert_close(effective_weights(weight, "relu"), torch.full((2, 1), 0.001 / 0.0021))


def test_softmax_survives_large_weights():
    shares = effective_weights(torch.tensor([[1000.0], [999.0]]), "softmax")
    torch.testing.assert_close(shares.flatten(), torch.tensor([1.0, 0.3678794]) / 1.3679794)


def expected_gradients(weight, normalization, inputs, delta):
    """The chain rule written out: input j gets p_j delta, weight j its share of G_j = sum of delta x_j."""
    floor, epsilon, width = 1e-3, 1e-4, inputs[0].shape[1]
    r = weight.clamp(min=floor) if normalization == "relu" else (weight - weight.amax(0)).exp()
    share = r / (epsilon + r.sum(0))
    gain = torch.zeros(len(inputs), width, dtype=delta.dtype)
    for_inputs = []
    for j, x in enumerate(inputs):
        shared = min(width, x.shape[1])
        gain[j, :shared] = (delta[:, :shared] * x[:, :shared]).sum((0, 2, 3))
        gradient = torch.zeros_like(x)
        gradient[:, :shared] = (share[j].expand(width)[None, :, None, None] * delta)[:, :shared]
        for_inputs.append(gradient)
    if weight.shape[1] == 1:
        gain = gain.sum(1, keepdim=True)
    centred = gain - (share * gain).sum(0)
    inner = share if normalization == "softmax" else (weight > floor) / (epsilon + r.sum(0))
    return for_inputs, inner * centred


@pytest.mark.parametrize(("weights_type", "normalization"), WEIGHTED)
def test_gradients_follow_the_chain_rule_written_out(weights_type, normalization):
    generator = torch.Generator().manual_seed(3)
    channels = (6, 4, 9, 6)
    layer = WeightedShortcut(channels, weights_type=weights_type, normalization=normalization).double()
    torch.nn.init.uniform_(layer.weight, -0.5, 1.5, generator=generator)
    inputs = [torch.randn(2, c, 5, 3, generator=generator, dtype=torch.float64) for c in channels]
    delta = torch.randn(2, 6, 5, 3, generator=generator, dtype=torch.float64)
    for x in inputs:
        x.requires_grad_()
    layer(*inputs).backward(delta)
    with torch.no_grad():
        for_inputs, for_weight = expected_gradients(layer.weight, normalization, inputs, delta)
    torch.testing.assert_close(layer.weight.grad, for_weight)
    torch.testing.assert_close([x.grad for x in inputs], for_inputs)


@pytest.mark.parametrize("weights_type", ["per_feature", "per_channel"])
def test_sigmoid_shares_are_two_sigmoids_over_the_number_of_inputs(weights_type):
    layer = WeightedShortcut((4, 4, 4), weights_type=weights_type, normalization="sigmoid")
    torch.testing.assert_close(layer.effective_weights(), torch.full_like(layer.weight, 1 / 3))
    torch.nn.init.constant_(layer.weight, 1.5)
    expected = 2 / 3 / (1 + math.exp(-1.5))
    torch.testing.assert_close(layer.effective_weights(), torch.full_like(layer.weight, expected))


@pytest.mark.parametrize("weights_type", ["per_feature", "per_channel"])
def test_sigmoid_gradients_are_those_of_finite_differences(weights_type):
    layer = WeightedShortcut((3, 2), weights_type=weights_type, normalization="sigmoid").double()
    inputs = [torch.randn(2, c, 2, 2, dtype=torch.float64) for c in (3, 2)]
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(layer, {"weight": weight}, tuple(inputs)),
        torch.randn_like(layer.weight).requires_grad_(),
    )


@pytest.mark.parametrize("normalization", ["none", "relu", "softmax"])
def test_the_choice_of_gradient_changes_nothing_but_the_raw_weights_gradient(normalization):
    results = []
    for fusion_gradient in ("true", "darknet"):
        torch.manual_seed(0)
        options = {"normalization": normalization, "fusion_gradient": fusion_gradient}
        layer = WeightedShortcut((4, 2, 6), weights_type="per_channel", **options)
        torch.nn.init.uniform_(layer.weight, -0.5, 1.5)
        inputs = [torch.randn(2, c, 3, 3).requires_grad_() for c in (4, 2, 6)]
        output = layer(*inputs)
        output.square().sum().backward()
        results.append(([output, *(x.grad for x in inputs)], layer.weight.grad))
    assert all(torch.equal(*pair) for pair in zip(results[0][0], results[1][0], strict=True))
    assert torch.equal(results[0][1], results[1][1]) == (normalization == "none")


def test_unnormalized_weights_multiply_as_they_are():
    layer = WeightedShortcut((2, 2), weights_type="per_feature")
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-2.0], [0.5]]))
    x, y = torch.ones(1, 2, 1, 1), torch.full((1, 2, 1, 1), 4.0)
    assert layer(x, y).flatten().tolist() == [0.0, 0.0]
    assert layer(x, y * 0).flatten().tolist() == [-2.0, -2.0]


def test_a_narrower_input_adds_to_the_first_channels_and_a_wider_one_is_cut():
    narrow, wide = torch.full((1, 1, 1, 1), 10.0), torch.arange(3.0).reshape(1, 3, 1, 1)
    total = weighted_sum([torch.ones(1, 2, 1, 1), narrow, wide])
    assert total.flatten().tolist() == [11.0, 2.0]


@pytest.mark.parametrize("weights_type", ["none", "per_feature", "per_channel"])
def test_the_inputs_are_left_as_they_were(weights_type):
    layer = WeightedShortcut((2, 2), weights_type=weights_type, act="leaky")
    x, y = torch.full((1, 2, 2, 2), -1.0), torch.full((1, 2, 2, 2), -3.0)
    assert (layer(x, y) == -0.4).all()
    assert (x == -1).all()
    assert (y == -3).all()


@pytest.mark.parametrize(("weights_type", "shape"), [("none", None), ("per_feature", (3, 1)), ("per_channel", (3, 4))])
def test_the_parameter_has_one_row_for_each_input(weights_type, shape):
    parameters = dict(WeightedShortcut((4, 2, 4), weights_type=weights_type).named_parameters())
    assert {name: p.shape for name, p in parameters.items()} == ({} if shape is None else {"weight": shape})
    assert all((p == 1).all() for p in parameters.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights_type": "per_feture"}, "weights_type='per_feture'.*Did you mean per_feature"),
        ({"weights_type": "per_feature", "normalization": "sofmax"}, "Did you mean softmax"),
        ({"normalization": "relu"}, "nothing to normalize"),
        ({"act": "mich"}, "Did you mean mish"),
        ({"fusion_gradient": "darknets"}, "Did you mean darknet"),
        (
            {"weights_type": "per_feature", "normalization": "sigmoid", "fusion_gradient": "darknet"},
            "no rule for normalization='sigmoid'",
        ),
    ],
)
def test_a_choice_that_makes_no_sense_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        WeightedShortcut((4, 4), **options)


def test_a_single_input_is_refused():
    with pytest.raises(ValueError, match="at least two inputs"):
        WeightedShortcut((4,))


@pytest.mark.parametrize(
    ("widths", "sizes", "message"),
    [
        ((4, 4, 4), (3, 3, 3), r"shortcut of \(4, 4\) channels got inputs of \(4, 4, 4\)"),
        ((4, 5), (3, 3), r"got inputs of \(4, 5\)"),
        ((4, 4), (3, 2), r"input 1 is \(2, 2\) high and wide, input 0 is \(3, 3\)"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(widths, sizes, message):
    inputs = [torch.zeros(1, width, size, size) for width, size in zip(widths, sizes, strict=True)]
    with pytest.raises(ValueError, match=message):
        WeightedShortcut((4, 4))(*inputs)


@pytest.mark.parametrize("weights_type", ["per_feature", "per_channel"])
def test_bfloat16_maps_give_a_bfloat16_sum_and_a_float32_weight_gradient(weights_type):
    layer = WeightedShortcut((4, 2), weights_type=weights_type, normalization="softmax")
    x, y = torch.randn(2, 4, 3, 3), torch.randn(2, 2, 3, 3)
    expected = layer(x, y)
    with torch.autocast("cpu", torch.bfloat16):
        total = layer(x.bfloat16(), y.bfloat16())
    total.sum().backward()
    assert total.dtype == torch.bfloat16
    assert layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(total.float(), expected, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("weights_type", ["per_feature", "per_channel"])
def test_bfloat16_keeps_the_weight_gradient_of_inputs_that_resemble_each_other(weights_type):
    """The gradients of the shares nearly cancel; rounded to bfloat16 first, nothing but noise is left of them."""
    torch.manual_seed(0)
    common, upstream = torch.randn(8, 4, 16, 16), torch.randn(8, 4, 16, 16)
    maps = [(common + 0.5 * upstream + 0.1 * torch.randn(8, 4, 16, 16)).bfloat16() for _ in range(3)]
    layer = WeightedShortcut((4, 4, 4), weights_type=weights_type, normalization="softmax")
    gradients = []
    for inputs in (maps, [x.double() for x in maps]):
        layer.zero_grad()
        (
            layer.to(torch.float64 if inputs is not maps else torch.float32)(*inputs) * upstream.bfloat16()
        ).sum().backward()
        gradients.append(layer.weight.grad.double())
    half, exact = gradients
    assert (half - exact).norm() < 0.1 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_its_gradients_compile(dtype):
    layer = WeightedShortcut((4, 2), weights_type="per_feature", normalization="softmax")
    inputs = [torch.randn(2, c, 3, 3).to(dtype) for c in (4, 2)]
    plain, compiled = [], []
    for found, run in ((plain, layer), (compiled, torch.compile(layer, fullgraph=True, backend="aot_eager"))):
        layer.zero_grad()
        run(*inputs).float().sum().backward()
        found.append(layer.weight.grad.clone())
    torch.testing.assert_close(plain, compiled)


@pytest.mark.parametrize("fusion_gradient", ["true", "darknet"])
@pytest.mark.parametrize(("weights_type", "normalization"), [("none", "none"), ("per_channel", "softmax")])
def test_it_compiles_to_one_graph(weights_type, normalization, fusion_gradient):
    options = {"weights_type": weights_type, "normalization": normalization, "fusion_gradient": fusion_gradient}
    layer = WeightedShortcut((4, 2, 6), **options, act="mish")
    inputs = [torch.randn(2, c, 3, 3) for c in (4, 2, 6)]
    compiled = torch.compile(layer, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(*inputs), layer(*inputs))


@pytest.mark.parametrize("act", ["linear", "mish"])
@pytest.mark.parametrize("normalization", ["relu", "softmax", "sigmoid"])
@pytest.mark.parametrize("fusion_gradient", ["true", "darknet"])
@pytest.mark.parametrize("weights_type", ["none", "per_feature", "per_channel"])
def test_recomputation_changes_neither_the_sum_nor_a_gradient(weights_type, fusion_gradient, normalization, act):
    if weights_type == "none":
        normalization, fusion_gradient = "none", "true"
    if normalization == "sigmoid":
        fusion_gradient = "true"
    options = {"normalization": normalization, "fusion_gradient": fusion_gradient, "act": act}
    layer = WeightedShortcut((4, 2, 6), weights_type=weights_type, **options).double()
    inputs = [torch.randn(2, c, 3, 5, dtype=torch.float64, requires_grad=True) for c in layer.channels]
    leaves, results = [*inputs, *layer.parameters()], []
    for weight in layer.parameters():
        torch.nn.init.uniform_(weight, -0.5, 1.5)
    for layer.recompute in (True, False):
        y = layer(*inputs)
        results.append((y.detach(), torch.autograd.grad(y.square().sum(), leaves)))
    torch.testing.assert_close(*results)
