"""Networks: one family a file, and their weights."""

from vizsynth.models.alexnet import alexnet as alexnet
from vizsynth.models.layers import fold_batch_norm as fold_batch_norm
from vizsynth.models.network import IMAGENET as IMAGENET
from vizsynth.models.network import parameter_count as parameter_count
from vizsynth.models.network import with_attributes as with_attributes
from vizsynth.models.network import with_precision as with_precision
from vizsynth.models.resnet import resnet18 as resnet18
from vizsynth.models.resnet import resnet34 as resnet34
from vizsynth.models.resnet import resnet50 as resnet50
from vizsynth.models.resnet import resnet101 as resnet101
from vizsynth.models.resnet import resnet152 as resnet152
from vizsynth.models.sequential import sequential as sequential
from vizsynth.models.squeezenet import squeezenet1_1 as squeezenet1_1
from vizsynth.models.vgg import vgg11 as vgg11
from vizsynth.models.vgg import vgg11_bn as vgg11_bn
from vizsynth.models.vgg import vgg13 as vgg13
from vizsynth.models.vgg import vgg13_bn as vgg13_bn
from vizsynth.models.vgg import vgg16 as vgg16
from vizsynth.models.vgg import vgg16_bn as vgg16_bn
from vizsynth.models.vgg import vgg19 as vgg19
from vizsynth.models.vgg import vgg19_bn as vgg19_bn
