"""What `import vizsynth` offers: one explicit re-export a line.

It is a module of its own so that `vizsynth --help` need not wait for JAX: `vizsynth/__init__.py`
imports it when one of its names is first asked for.
"""

from vizsynth import models as models
from vizsynth.evaluation.average_drop import average_drop as average_drop
from vizsynth.evaluation.average_drop import average_gain as average_gain
from vizsynth.evaluation.average_drop import increase_in_confidence as increase_in_confidence
from vizsynth.evaluation.bootstrap import bootstrap_mean as bootstrap_mean
from vizsynth.evaluation.correct import Correct as Correct
from vizsynth.evaluation.infidelity import infidelity as infidelity
from vizsynth.evaluation.insertion_deletion import blurred as blurred
from vizsynth.evaluation.insertion_deletion import deletion as deletion
from vizsynth.evaluation.insertion_deletion import insertion as insertion
from vizsynth.evaluation.localization import energy_in_box as energy_in_box
from vizsynth.evaluation.localization import pointing_game as pointing_game
from vizsynth.evaluation.max_sensitivity import max_sensitivity as max_sensitivity
from vizsynth.evaluation.randomization import cascading_randomization as cascading_randomization
from vizsynth.evaluation.randomization import independent_randomization as independent_randomization
from vizsynth.evaluation.randomization import parameter_layers as parameter_layers
from vizsynth.evaluation.road import noisy_linear_imputation as noisy_linear_imputation
from vizsynth.evaluation.road import road as road
from vizsynth.evaluation.sensitivity_n import sensitivity_n as sensitivity_n
from vizsynth.maps.ablation_cam import ablation_cam as ablation_cam
from vizsynth.maps.cam import cam as cam
from vizsynth.maps.deconvnet import deconvnet as deconvnet
from vizsynth.maps.eigen_cam import eigen_cam as eigen_cam
from vizsynth.maps.fusion import fuse as fuse
from vizsynth.maps.grad_cam import grad_cam as grad_cam
from vizsynth.maps.grad_cam_pp import grad_cam_pp as grad_cam_pp
from vizsynth.maps.gradient import gradient as gradient
from vizsynth.maps.guided_backprop import guided_backprop as guided_backprop
from vizsynth.maps.guided_grad_cam import guided_grad_cam as guided_grad_cam
from vizsynth.maps.hires_cam import hires_cam as hires_cam
from vizsynth.maps.input_x_gradient import input_x_gradient as input_x_gradient
from vizsynth.maps.integrated_gradients import Integrated as Integrated
from vizsynth.maps.integrated_gradients import (
    adaptive_integrated_gradients as adaptive_integrated_gradients,
)
from vizsynth.maps.integrated_gradients import completeness as completeness
from vizsynth.maps.integrated_gradients import integrated_gradients as integrated_gradients
from vizsynth.maps.layer_cam import layer_cam as layer_cam
from vizsynth.maps.lrp import Relevance as Relevance
from vizsynth.maps.lrp import lrp as lrp
from vizsynth.maps.lrp import relevance as relevance
from vizsynth.maps.occlusion import occlusion as occlusion
from vizsynth.maps.rise import rise as rise
from vizsynth.maps.saliency import saliency as saliency
from vizsynth.maps.score_cam import score_cam as score_cam
from vizsynth.maps.smooth_grad import smooth_grad as smooth_grad
from vizsynth.maps.smooth_grad import smooth_grad_squared as smooth_grad_squared
from vizsynth.maps.smooth_grad import var_grad as var_grad
from vizsynth.maps.xgrad_cam import xgrad_cam as xgrad_cam
from vizsynth.models import load as load
from vizsynth.synthesis.activation_grid import activation_grid as activation_grid
from vizsynth.synthesis.adversarial import l2_ball as l2_ball
from vizsynth.synthesis.adversarial import linf_ball as linf_ball
from vizsynth.synthesis.apgd import apgd_ce as apgd_ce
from vizsynth.synthesis.apgd import apgd_dlr as apgd_dlr
from vizsynth.synthesis.atlas import activation_atlas as activation_atlas
from vizsynth.synthesis.atlas import atlas_cells as atlas_cells
from vizsynth.synthesis.atlas import whitening as whitening
from vizsynth.synthesis.bim import bim as bim
from vizsynth.synthesis.carlini_wagner import carlini_wagner as carlini_wagner
from vizsynth.synthesis.class_visualization import visualize_class as visualize_class
from vizsynth.synthesis.deepdream import deepdream as deepdream
from vizsynth.synthesis.deepdream import deepdream_zoom as deepdream_zoom
from vizsynth.synthesis.deepfool import deepfool as deepfool
from vizsynth.synthesis.diversity import visualize_diverse as visualize_diverse
from vizsynth.synthesis.efros_leung import efros_leung as efros_leung
from vizsynth.synthesis.feature_visualization import visualize_feature as visualize_feature
from vizsynth.synthesis.fgsm import fgsm as fgsm
from vizsynth.synthesis.fooling import fool as fool
from vizsynth.synthesis.fooling import magnified as magnified
from vizsynth.synthesis.interpolation import interpolate as interpolate
from vizsynth.synthesis.inversion import invert as invert
from vizsynth.synthesis.inversion import invert_layers as invert_layers
from vizsynth.synthesis.inversion import normalized_error as normalized_error
from vizsynth.synthesis.latent import visualize_latent as visualize_latent
from vizsynth.synthesis.mi_fgsm import mi_fgsm as mi_fgsm
from vizsynth.synthesis.multifaceted import facets as facets
from vizsynth.synthesis.multifaceted import facets_of as facets_of
from vizsynth.synthesis.multifaceted import visualize_facets as visualize_facets
from vizsynth.synthesis.pgd import pgd as pgd
from vizsynth.synthesis.pgd import pgd_l2 as pgd_l2
from vizsynth.synthesis.quilting import quilt_texture as quilt_texture
from vizsynth.synthesis.quilting import quilt_transfer as quilt_transfer
from vizsynth.synthesis.style import transfer_style as transfer_style
from vizsynth.synthesis.texture import Gram as Gram
from vizsynth.synthesis.texture import synthesize_texture as synthesize_texture
from vizsynth.synthesis.universal_perturbation import fooling_rate as fooling_rate
from vizsynth.synthesis.universal_perturbation import universal_perturbation as universal_perturbation
from vizsynth.synthesis.wasserstein import Wasserstein as Wasserstein
from vizsynth.synthesis.wei_levoy import wei_levoy as wei_levoy
from vizsynth.synthesis.yosinski import visualize_regularized as visualize_regularized
from vizsynth.taps import features as features
