"""Made `small_net.safetensors` beside it: the training images of mnist5k, ten passes of Adam."""

from pathlib import Path

import safetensors.torch
import torch
from small_net import SmallNet

from trainables.datasets.base import load_splits
from trainables.datasets.mnist5k import MNIST5k
from trainables.execution import Execution

torch.manual_seed(0)
train = load_splits(MNIST5k(), Execution()).train
net = SmallNet()
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for _ in range(10):
    for index in torch.randperm(len(train)).split(64):
        images, labels = train.batch(index)
        logits = net((images - 0.1307) / 0.3081)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits, labels).backward()
        optimizer.step()
safetensors.torch.save_file(net.state_dict(), Path(__file__).with_name("small_net.safetensors"))
