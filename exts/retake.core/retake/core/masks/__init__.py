# SPDX-License-Identifier: Apache-2.0
"""Masks and depth for recorded episodes: the robot's meshes drawn at the recorded states, after fitting the calibration."""

from retake.core.masks.fit import Calibrated, fit_calibration
from retake.core.masks.make import mask_episode
from retake.core.masks.meshes import RobotMeshes, read_meshes, read_robot

__all__ = ["Calibrated", "RobotMeshes", "fit_calibration", "mask_episode", "read_meshes", "read_robot"]
