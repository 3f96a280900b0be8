"""Train a convolutional network on MNIST digits with uniform sampling, SVRG and importance sampling.

python examples/mnist_svrg_cnn.py --data mnist.npz
"""

from common import Example
from loading import digits
from mnist_cnn import build

from importance_sampling.training import SVRG, ImportanceTraining

EXAMPLE = Example("mnist_svrg_cnn", __doc__, digits, build, SVRG, way="SVRG", others={"importance": ImportanceTraining})

if __name__ == "__main__":
    EXAMPLE.main()
