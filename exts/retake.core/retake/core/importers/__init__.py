# SPDX-License-Identifier: Apache-2.0
"""Ways into an Episode from what others recorded: OSCAR's layout, LeRobot data sets, Isaac Lab's and Isaac Sim's HDF5."""
