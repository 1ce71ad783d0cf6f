"""Group norm for pictures whose channels are last in memory."""

from torch import Tensor, nn


class ChannelwiseGroupNorm(nn.GroupNorm):
    """The same numbers up to rounding, as reductions over pixels, channel by channel.

    A group's numbers do not lie together where channels are last, so reducing over a group at once, as
    torch.compile would, reads memory in small pieces. Only for compilation: eager, it is slower.
    """

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] in any precision; statistics are fp32."""
        wide = input.float()
        centered = wide - self._of_groups(wide.mean((2, 3)))
        inverse = (self._of_groups(centered.square().mean((2, 3))) + self.eps).rsqrt()
        weight, bias = (p.float()[None, :, None, None] for p in (self.weight, self.bias))
        return (centered * inverse * weight + bias).to(input.dtype)

    def _of_groups(self, of_channels: Tensor) -> Tensor:
        """Means over the channels of each group. [N, C] -> [N, C, 1, 1]"""
        groups = of_channels.unflatten(1, (self.num_groups, -1)).mean(2)
        repeated = groups.repeat_interleave(self.num_channels // self.num_groups, dim=1)
        return repeated[:, :, None, None]


def norm_by_channel(module: nn.Module) -> None:
    """Have all group norms of pictures in a module computed so, in place."""
    for name, norm in list(module.named_modules()):
        # Of others, in attention blocks, pixels may be one axis already.
        if isinstance(norm, nn.GroupNorm) and not name.endswith("group_norm"):
            channelwise = ChannelwiseGroupNorm(norm.num_groups, norm.num_channels, norm.eps, device="meta")
            channelwise.weight, channelwise.bias = norm.weight, norm.bias
            module.set_submodule(name, channelwise)
