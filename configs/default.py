"""Every field of a run with its default: the only place where a default lives.

An experiment is a file beside this one that calls `get_config()` and changes what differs. Any
field can be changed on the command line: `--config.support.size=100`.

Run: python main.py --config=configs/default.py --workdir=runs/default
"""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_config() -> ConfigDict:
    """The default experiment: KIP on scikit-learn's digits."""
    config = ConfigDict()

    # 'kip': learn the support by gradient descent. 'kip_solve': the same, but its labels are solved
    # for at every step. 'kip_newton': that by Gauss-Newton steps, of which it takes few. 'rfad': as
    # 'kip', by features of random networks. 'frepo': by those of networks that are being trained.
    # 'bptt': by what networks get wrong that were trained on the support.
    # 'ls' (Label Solve): solve for the labels only; 'ls_cross_entropy': those that classify most.
    # 'dc', 'dsa': learn the images by matching gradients. 'dp_kip': as 'kip', with differential
    # privacy. Or a module of your own by its dotted name: see docs/adding-an-algorithm.md.
    config.algorithm = "kip"
    # All random numbers of a run follow from this and from the number of the step.
    config.seed = 0

    config.dataset = ConfigDict()
    # digits, mnist, fashion_mnist, cifar10, cifar100, svhn, folder or npz; or a module of your own
    # by its dotted name.
    config.dataset.name = "digits"
    # Folder with the publisher's files, class sub-folders or an .npz. 'digits' needs none.
    config.dataset.data_dir = ""
    # 'folder' only: pictures are brought to this many pixels a side.
    config.dataset.image_size = 32
    # 'folder' without train/test folders, 'npz' without test arrays, and 'digits': share of every
    # class that is kept for testing.
    config.dataset.test_fraction = 0.2
    # Share of the training images, the same of every class, that takes the place of the test
    # images, so that settings are chosen without a look at those; 0: none.
    config.dataset.validation = 0.0
    # Classes to take, by number or name, in the order that they are numbered in then; (): all.
    config.dataset.classes = ()
    # Another data set in data_dir, of images of the same shape: preprocessing is fitted on its
    # training images; '': on those of dataset.name.
    config.dataset.preprocess_from = ""

    # 'none' and 'centred' fit nothing. 'standard', 'zca_normalize' (as published), 'zca' (RFAD's)
    # and 'zca_center' (FRePo's) are fitted on training images alone.
    config.preprocess = "standard"
    # Augmentations of the target batches, comma separated ('' for none): kip_flax/data/augment.py.
    config.augment = ""

    config.kernel = ConfigDict()
    # fc, conv, convnet, convnet_plain (no layer before the blocks) or myrtle; or a module of your
    # own by its dotted name: see docs/architecture.md.
    config.kernel.architecture = "convnet"
    # Hidden layers (fc, conv), pooled blocks (convnet), or 5, 7, 10 (myrtle).
    config.kernel.depth = 3
    # 'ntk', or 'standard', where the width of the network matters.
    config.kernel.parameterization = "ntk"
    # Channels or units of a layer ('standard' only).
    config.kernel.width = 1024
    # Standard deviation of the weights at initialisation, times sqrt(fan-in).
    config.kernel.w_std = 2**0.5
    # Standard deviation of the biases at initialisation.
    config.kernel.b_std = 0.1
    # 'ntk' (all layers are trained) or 'nngp' (the last one is).
    config.kernel.kind = "ntk"
    # An image and its mirror image are one: each learned image counts for both, and a kernel entry
    # costs twice as much. RFAD, FRePo, BPTT, DC and DSA: for the evaluation alone.
    config.kernel.mirrored = False
    # 'auto' takes the fastest that fits: 'cpu' (numba) on CPUs, 'xla' elsewhere; 'neural_tangents'
    # is the reference, slow.
    config.kernel.implementation = "auto"

    config.support = ConfigDict()
    # Learned images in all, the same number for every class.
    config.support.size = 10
    # 'real': drawn from the training images; chosen from them: 'herding', such that their mean
    # follows that of the class, 'herding_unit', the same by directions alone (for photographs), or
    # 'kmeans', nearest to the centres of the class; 'noise': standard normal in the preprocessed
    # space; or the file of a distilled set (.npz) to take further, with its preprocessing.
    config.support.init = "real"
    # KIP: learn the labels along with the images.
    config.support.learn_labels = True
    # 'kip' and 'kip_solve': share of every image's pixels that hold noise and are not learned.
    config.support.frozen = 0.0

    config.optimizer = ConfigDict()
    # 'adam', 'lamb' or 'sgd'.
    config.optimizer.name = "adam"
    # Where the schedule is constant, and at its height otherwise.
    config.optimizer.learning_rate = 0.04
    # 'constant', 'cosine' to 0 at num_steps, or 'cosine_tenth' to a tenth.
    config.optimizer.schedule = "constant"
    # Steps of linear growth from 0 to learning_rate.
    config.optimizer.warmup_steps = 0
    # 'sgd' only.
    config.optimizer.momentum = 0.9

    # Training images that one step looks at (KIP: drawn per class; LS: a tile, in fixed order; DC,
    # DSA: as many of every class).
    config.batch_size = 500
    # KIP: updates of the support; DC, DSA: of the images. LS makes one pass over the training set.
    config.num_steps = 1000
    # Hours after which a run ends, evaluated and exported, if num_steps come no sooner; all its
    # parts together, without loading data. Schedules end then too. 0: no limit.
    config.time_limit = 0.0
    # Regulariser of kernel ridge regression, in units of the kernel's mean diagonal. Where labels
    # are solved for (LS, 'kip_solve', 'kip_newton') it is also an absolute one, as LS published it:
    # leave it small there. Steps of FRePo, BPTT, DC and DSA do not take it, evaluations do.
    config.reg = 1e-6

    # DC and DSA: the network whose gradients are matched, and how it is trained meanwhile.
    config.matching = ConfigDict()
    # mlp, convnet_in, convnet2_in, lenet, alexnet, vgg11_in or resnet18_in (networks/zoo.py).
    config.matching.network = "convnet_in"
    # Updates of the images before another network is drawn. Published for 1, 10, 20, 30, 40, 50
    # images per class: 1, 10, 20, 30, 40, 50.
    config.matching.outer_loops = 1
    # Epochs on the learned images after each update but the last: 1, 50, 25, 20, 15, 10.
    config.matching.inner_loops = 1
    # Of the network.
    config.matching.learning_rate = 0.01
    # Learned images of one step of its training.
    config.matching.batch_train = 256
    # DSA: augmentations, comma separated, of which each step draws one for real and learned images
    # alike: color, crop, cutout, flip, scale, rotate.
    config.matching.augment = ""

    config.newton = ConfigDict()
    # 'kip_newton', which takes no optimiser: least damping of the first step, in units of the
    # curvature's mean; the steps adapt it between 1e-5 and 10.
    config.newton.damping = 0.1
    # Directions that a step is made of.
    config.newton.iterations = 100
    # Images that move at once, a divisor of support.size: a step takes one block after the other.
    # The memory of gradients follows it. 0: all.
    config.newton.block = 0
    # Targets of the last steps, in multiples of batch_size, a power of 2: batches double on the way
    # to num_steps, each size for about as many targets in all. 1: batches stay.
    config.newton.growth = 1

    # FRePo: networks that are trained on the support, and whose last features regress the targets.
    config.frepo = ConfigDict()
    # One of transfer.networks: a description, or a network of the zoo.
    config.frepo.network = "convnet_plain:3"
    # Channels of the first layer of a description. Published: 128.
    config.frepo.width = 64
    # What each pooling of a description multiplies the channels by. Published: 2 (128, 256, 512).
    config.frepo.growth = 1
    # 'none', 'batch' (as published) or 'instance', before all convolutions of a description but the
    # first.
    config.frepo.normalization = "none"
    # Networks.
    config.frepo.pool = 10
    # Steps of a network's training, after which it is drawn anew.
    config.frepo.life = 100
    # Of Adam, which trains the networks.
    config.frepo.learning_rate = 3e-4
    # Regress on the learned images and their mirror images; refused where these may be of another
    # class (digits, SVHN, an npz of grey images). Published for CIFAR-100 with ten or more per
    # class: False.
    config.frepo.flip = True
    # Reward labels whose largest entry is ahead of the second by up to 1/classes.
    config.frepo.margin = True
    # Decay of the exponential mean of the last sets, which is exported; 0: the last set.
    config.frepo.average = 0.98

    # 'dp_kip': the privacy of the training images.
    config.privacy = ConfigDict()
    # What the whole run may spend, for sets that differ in one training image.
    config.privacy.epsilon = 10.0
    # Probability that is left out; below 1 / training images.
    config.privacy.delta = 1e-5
    # Largest norm of the gradient of one target, images and labels together.
    config.privacy.clip = 0.1
    # Deviation of the noise in units of the clip; the run ends when epsilon is spent. 0: the least
    # with which num_steps steps spend epsilon.
    config.privacy.noise_multiplier = 0.0
    # 'means': the first step sets the images to noisy means of their classes. 'noise': it does not,
    # and they start as noise.
    config.privacy.start = "means"
    # The share of epsilon that the means alone would spend; together steps spend less than the sum.
    config.privacy.means_share = 0.3
    # Root mean square of the pixels that brighter images are scaled down to before the means.
    config.privacy.means_clip = 0.5
    # Standard deviation of the noise that the images are before the first step.
    config.privacy.start_std = 0.3
    # The images are learned in so many of the lowest frequencies of each side (cosine transform),
    # so that there is less to add noise to; 0: in all.
    config.privacy.frequencies = 0
    # Decay of the exponential mean of the last sets, which is exported; 0: the last set.
    config.privacy.average = 0.95
    # -1: noise and draws come from the operating system. A number makes an experiment that can be
    # repeated, and is not private.
    config.privacy.noise_seed = -1

    # BPTT: networks whose training on the support is differentiated.
    config.bptt = ConfigDict()
    # One of transfer.networks: a description, or a network of the zoo.
    config.bptt.network = "convnet_plain:3"
    # Channels of a layer of a description.
    config.bptt.width = 64
    # Networks. Their ages spread as they are drawn.
    config.bptt.pool = 10
    # Of them, those that a step draws and trains; devices share them.
    config.bptt.networks = 2
    # Steps of a network's training that are differentiated, after which it goes back to the pool.
    config.bptt.window = 30
    # Steps of a network's training, after which it is drawn anew. transfer.recipe='auto' takes 500
    # for ten images and 1,000 for 100.
    config.bptt.life = 500
    # Of Adam, which trains the networks; it falls as a cosine to 0 over a life.
    config.bptt.learning_rate = 1e-3
    # Networks learn the labels times this.
    config.bptt.label_scale = 8.0
    # Augmentations of the support while networks train on it, as in transfer.augment; 'flip' is
    # refused where mirror images may be of another class.
    config.bptt.augment = "flip,nudge"
    # 'all' of them, or 'one', drawn for every batch.
    config.bptt.augment_draw = "all"
    # Decay of the exponential mean of the last sets, which is exported; 0: the last set.
    config.bptt.average = 0.98

    # 'rfad', which takes none of the optimiser above: AdaBelief, and fresh networks every step, of
    # the kernel's architecture.
    config.rfad = ConfigDict()
    # Networks of a step.
    config.rfad.networks = 8
    # Channels or units of their layers.
    config.rfad.width = 256
    # 'mse', or 'platt': cross-entropy of predictions times a learned number.
    config.rfad.loss = "mse"
    # Of images and labels.
    config.rfad.learning_rate = 1e-3
    # Of the linear transform of the pixels, which starts as the identity; 0: there is none.
    config.rfad.transform_rate = 5e-5
    # Of the logarithm of that number.
    config.rfad.platt_rate = 1e-2
    # Of all rates: 'constant', as published, 'cosine' to 0 at num_steps, or 'cosine_tenth'.
    config.rfad.schedule = "constant"
    # Decay of the exponential mean of the last sets, which is exported; 0: the last set, as
    # published. Images before the transform, and the transform, are averaged separately.
    config.rfad.average = 0.0
    # Extrapolate the loss to infinitely many networks, from that of all and of their halves, which
    # need ten features for each image.
    config.rfad.debias = False

    config.mesh = ConfigDict()
    # Devices that share the targets; -1: all that are left.
    config.mesh.data = -1
    # Devices that share the support in the exact kernel. Steps of RFAD, FRePo, BPTT, DC and DSA
    # share their work over mesh.data alone: leave it at 1 there.
    config.mesh.support = 1
    # Devices that the processor is split into, where there is no accelerator; 0: one per core.
    config.mesh.cpu_devices = 0

    config.checkpoint = ConfigDict()
    # Steps between checkpoints. Another comes before every evaluation.
    config.checkpoint.every_steps = 50
    # Checkpoints kept, the newest ones.
    config.checkpoint.keep = 3

    config.eval = ConfigDict()
    # Steps at which the test accuracy is measured and the support exported, besides the last; () is
    # the published list: 0, 1, 2, 4, 6, 8, 12, 18, 26, 37, 54, 78, 112, 162, 233, 335, 483, 695,
    # 1000, then every 500.
    config.eval.steps = ()
    # Test images, spread evenly over the test set; 0: all.
    config.eval.num_test = 0
    # Test images per call of the kernel.
    config.eval.batch_size = 500
    # 'kip_solve' and 'kip_newton' solve for the labels of a set with so many training images, the
    # same ones at every evaluation; 0: all. About support.size / targets is added to the error.
    config.eval.label_targets = 10_000
    # By which loss: 'squared_error', or 'cross_entropy', which classifies more and needs hundreds
    # of targets for each image.
    config.eval.label_loss = "squared_error"
    # Networks that are trained on the set at every evaluation: names as in transfer.networks, but
    # no 'krr'; () for none. The fields of transfer say how. They are tested on the validation
    # images of dataset.validation, or without it on training images held out
    # (transfer.held_out). After the last step, without validation images,
    # transfer.seeds of them read the test images, once.
    config.eval.networks = ()
    # Networks of each name at an evaluation.
    config.eval.network_seeds = 2

    # --mode=transfer: finite networks trained on a distilled set. A placeholder is None: as the
    # recipe says.
    config.transfer = ConfigDict()
    # Networks: 'kernel' (the one above, of finite width), 'NAME:DEPTH' (any other description, such
    # as 'myrtle:5'), 'krr' (no network: kernel ridge regression with the kernel above; 'krr:fc:1':
    # with another), or one of kip_flax/networks/zoo.py: mlp,
    # convnet_in, convnet2_in, lenet, alexnet, vgg11_in, vgg11_bn, resnet18_in, resnet18_bn.
    config.transfer.networks = ("krr", "kernel")
    # How they are trained: 'auto', 'kip' (Nguyen et al., NeurIPS 2021), 'dc' (Zhao and Bilen, 2021)
    # or 'frepo' (Zhou et al., NeurIPS 2022); kip_flax/networks/recipe.py has their constants.
    config.transfer.recipe = "auto"
    # Channels or units of a layer of 'kernel' and 'NAME:DEPTH': 128 (kip: 1024).
    config.transfer.width = placeholder(int)
    # 'standard' or 'ntk', of the same networks.
    config.transfer.parameterization = "standard"
    # 'mse' (half the mean squared error) or 'cross_entropy' (dc).
    config.transfer.loss = placeholder(str)
    # 'soft': the labels as they are; 'hard': one-hot at the largest (dc).
    config.transfer.labels = placeholder(str)
    # Labels are multiplied by it; RFAD takes 2, 8 or 16.
    config.transfer.label_scale = placeholder(float)
    # What learns is f - f0, the outputs less those of the initial network, as RFAD trains.
    config.transfer.centred = placeholder(bool)
    # Images are divided by the deviation of the real ones (auto).
    config.transfer.scale_inputs = placeholder(bool)
    # Augmentations of the training batches, comma separated; '' for none (kip). The recipes flip
    # what may be flipped: not digits.
    config.transfer.augment = placeholder(str)
    # 'all' of them, in order, or 'one', drawn for every batch, as DSA and FRePo train.
    config.transfer.augment_draw = placeholder(str)
    # 'sgd' (kip, dc), 'adam' (auto, frepo), 'adabelief' or 'lamb'.
    config.transfer.optimizer = placeholder(str)
    # Of 'sgd': 0.9.
    config.transfer.momentum = placeholder(float)
    # Learning rates. Of several the best on held-out training images is taken.
    config.transfer.learning_rate = placeholder(tuple)
    # The same in units of the largest that the network's tangent kernel bears, in the place of
    # learning_rate: (1.0,) (kip). Whoever gives it trains by 'sgd'.
    config.transfer.lr_factor = placeholder(tuple)
    # Weight decay: half of it times the squared norm of all parameters is added to the loss, of
    # centred trainings that of their changes. Several: as above, together with the rates.
    config.transfer.l2 = placeholder(tuple)
    # Steps of a training: by the number of images, but 5,000 (kip).
    config.transfer.num_steps = placeholder(int)
    # Images of a step; all, if the set has no more: 500 (auto, more than 250 images: 125; kip: 100;
    # dc: 256).
    config.transfer.batch_size = placeholder(int)
    # 'cosine': the rate falls to end_rate at the last step; 'drop': at half of the steps (dc).
    config.transfer.schedule = placeholder(str)
    # Steps in which the rate grows from 0 (frepo: 500).
    config.transfer.warmup_steps = placeholder(int)
    # Share of the rate that is left at the end (frepo: 0.01, dc: 0.1).
    config.transfer.end_rate = placeholder(float)
    # Decay of the exponential mean of the weights that is tested; 0: the last weights (kip, dc).
    config.transfer.average = placeholder(float)
    # Steps of the trainings, of one seed, by which rate and L2 are chosen: a fifth of num_steps.
    config.transfer.choice_steps = placeholder(int)
    # Networks that are trained, with weights (and, where random, images) of their own.
    config.transfer.seeds = 5
    # Share of the training images, evenly over the classes (but not more than half of a small one),
    # that choices are made on; baselines that are drawn or chosen do not come from them.
    config.transfer.held_out = 0.1
    # Held-out images on which the tangent kernel is measured.
    config.transfer.ntk_inputs = 50
    # Test images per pass of the network; on a CPU no more than its cache holds.
    config.transfer.eval_batch_size = 100
    # At most so many steps between two looks at a training; None: as many as take some seconds.
    config.transfer.every_steps = placeholder(int)
    # Real images of the same number to compare with: 'initial' (what the set was made from),
    # 'label_solve' (the same, labels solved), 'random', 'kmeans', 'herding', 'herding_unit'.
    config.transfer.baselines = ()
    # Numbers of random real images among which the set's worth is looked for; () for no ladder.
    config.transfer.ladder = ()

    config.report = ConfigDict()
    # Training images, evenly over the classes, among which the analysis at the end of a run looks
    # for each learned image's neighbours, and on which it solves for labels to compare with (ten
    # per support image at the least); 0: no analysis.
    config.report.num_train = 2000

    config.log = ConfigDict()
    # Most steps between two lines of progress, each with a check that the loss is finite; there are
    # fewer where they take more than 10 s.
    config.log.every_steps = 10
    return config
