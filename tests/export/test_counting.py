"""Parameters and multiply–adds, against a count by hand."""

from torch import nn

from distillation.export.counting import count_multiply_adds, count_parameters
from distillation.export.onnx_file import plain_copy


class Small(nn.Module):
    """Images (B, 3, 8, 8) to 5 logits."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1, stride=2),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 5),
        ).eval()

    def forward(self, images):
        return self.layers(images.float())


def test_counts_are_those_by_hand():
    assert count_parameters(Small()) == (4 * 27 + 4) + 2 * 4 + 4 * 9 + (4 * 5 + 5)
    # 4 × 4 positions of 4 channels with 27 inputs each, then with 9, then 4 × 5.
    assert count_multiply_adds(Small(), 8) == 16 * 4 * 27 + 16 * 4 * 9 + 4 * 5


def test_attention_counts(make_model):
    vit = plain_copy(make_model("test_vit", size=32))
    net, tokens = vit.net, (32 // 16) ** 2 + 1
    dim = net.embed_dim
    hidden = net.blocks[0].mlp.fc1.out_features
    # qkv, scores, weighted sum, projection, two layers.
    block = tokens * (3 * dim * dim + 2 * tokens * dim + dim * dim + 2 * dim * hidden)
    embedding = (tokens - 1) * 3 * 16 * 16 * dim
    assert count_multiply_adds(vit, 32) == embedding + len(net.blocks) * block + dim * 10


def test_the_count_grows_with_the_image(make_model):
    model = plain_copy(make_model())
    assert count_multiply_adds(model, 32) > 3 * count_multiply_adds(model, 16)
