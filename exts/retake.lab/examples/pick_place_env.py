# SPDX-License-Identifier: Apache-2.0
"""Retake's pick-and-place as an environment of Isaac Lab 3 (manager-based): a Panda, a table, a packet, a tray, two cameras.

Local files only, Newton's physics and its Warp renderer: it runs without Kit and without a GPU. Registered with gymnasium
as `Retake-PickPlace-Panda-v0`.
"""

from __future__ import annotations

from pathlib import Path

import gymnasium
import isaaclab.envs.mdp as mdp
import isaaclab.sim as sim_utils
import torch
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.envs import ManagerBasedRLEnv, ManagerBasedRLEnvCfg
from isaaclab.managers import EventTermCfg, ObservationGroupCfg, ObservationTermCfg, SceneEntityCfg, TerminationTermCfg
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import CameraCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass
from isaaclab_newton.physics import MJWarpSolverCfg, NewtonCfg
from isaaclab_newton.renderers import NewtonWarpRendererCfg

TASK = "Retake-PickPlace-Panda-v0"
TASK_TEXT = "pick up the packet and drop it in the tray"
HERE = Path(__file__).resolve().parent
STAGES = HERE.parents[2] / "data" / "stages" / "pick_place"
ARM = [f"panda_joint{i}" for i in range(1, 8)]
FINGERS = ["panda_finger_joint1", "panda_finger_joint2"]
HOME = dict(zip([*ARM, *FINGERS], (0.0, -0.569, 0.0, -2.81, 0.0, 3.037, 0.741, 0.04, 0.04), strict=True))
PACKET_M = (0.12, 0.05, 0.14)
PACKET_AT, TRAY_AT = (0.5, -0.2, 0.0705), (0.45, 0.35, 0.0)


def camera(path: str, size: tuple[int, int], pos: tuple[float, ...], rot: tuple[float, ...], focal: float) -> CameraCfg:
    """A pinhole camera, OpenGL axes, quaternion x y z w."""
    return CameraCfg(
        prim_path=path,
        offset=CameraCfg.OffsetCfg(pos=pos, rot=rot, convention="opengl"),
        spawn=sim_utils.PinholeCameraCfg(focal_length=focal, horizontal_aperture=26.5, clipping_range=(0.01, 100.0)),
        width=size[0],
        height=size[1],
        data_types=["rgb"],
        renderer_cfg=NewtonWarpRendererCfg(),
        background_color=(0.23, 0.25, 0.27),
    )


@configclass
class SceneCfg(InteractiveSceneCfg):
    """What stands in each clone."""

    robot: ArticulationCfg = ArticulationCfg(
        prim_path="{ENV_REGEX_NS}/Robot",
        spawn=sim_utils.UsdFileCfg(usd_path=str(STAGES / "panda.usdc")),
        init_state=ArticulationCfg.InitialStateCfg(joint_pos=HOME),
        actuators={
            "arm": ImplicitActuatorCfg(joint_names_expr=["panda_joint.*"], stiffness=2500.0, damping=120.0),
            "hand": ImplicitActuatorCfg(joint_names_expr=["panda_finger_joint.*"], stiffness=2000.0, damping=100.0),
        },
    )
    packet: RigidObjectCfg = RigidObjectCfg(
        prim_path="{ENV_REGEX_NS}/Packet",
        spawn=sim_utils.CuboidCfg(
            size=PACKET_M,
            rigid_props=sim_utils.RigidBodyPropertiesCfg(),
            mass_props=sim_utils.MassPropertiesCfg(mass=0.1),
            collision_props=sim_utils.CollisionPropertiesCfg(),
            visual_material=sim_utils.PreviewSurfaceCfg(diffuse_color=(0.75, 0.2, 0.1)),
        ),
        init_state=RigidObjectCfg.InitialStateCfg(pos=PACKET_AT),
    )
    table: AssetBaseCfg = AssetBaseCfg(
        prim_path="{ENV_REGEX_NS}/Table",
        spawn=sim_utils.CuboidCfg(
            size=(0.8, 1.2, 0.04),
            collision_props=sim_utils.CollisionPropertiesCfg(),
            visual_material=sim_utils.PreviewSurfaceCfg(diffuse_color=(0.33, 0.22, 0.12)),
        ),
        init_state=AssetBaseCfg.InitialStateCfg(pos=(0.5, 0.0, -0.02)),
    )
    tray: AssetBaseCfg = AssetBaseCfg(
        prim_path="{ENV_REGEX_NS}/Tray",
        spawn=sim_utils.UsdFileCfg(usd_path=str(HERE / "tray.usda")),
        init_state=AssetBaseCfg.InitialStateCfg(pos=TRAY_AT),
    )
    pedestal: AssetBaseCfg = AssetBaseCfg(
        prim_path="{ENV_REGEX_NS}/Pedestal",
        spawn=sim_utils.CuboidCfg(
            size=(0.18, 0.22, 0.749), visual_material=sim_utils.PreviewSurfaceCfg(diffuse_color=(0.12, 0.13, 0.15))
        ),
        init_state=AssetBaseCfg.InitialStateCfg(pos=(-0.01, 0.0, -0.3755)),
    )
    floor: AssetBaseCfg = AssetBaseCfg(
        prim_path="{ENV_REGEX_NS}/Floor",
        spawn=sim_utils.CuboidCfg(
            size=(8.0, 8.0, 0.02), visual_material=sim_utils.PreviewSurfaceCfg(diffuse_color=(0.3, 0.31, 0.33))
        ),
        init_state=AssetBaseCfg.InitialStateCfg(pos=(0.0, 0.0, -0.76)),
    )
    front: CameraCfg = camera(
        "{ENV_REGEX_NS}/front", (320, 240), (1.5, -0.9, 0.95), (0.4773925, 0.22622634, 0.36359695, 0.76727784), 24.0
    )
    wrist: CameraCfg = camera(
        "{ENV_REGEX_NS}/Robot/panda_hand/wrist", (160, 120), (0.075, 0.0, 0.0),
        (0.6996117, 0.6996117, 0.1026812, 0.1026812), 16.0,
    )  # fmt: skip


@configclass
class ActionsCfg:
    """Absolute joint positions, in the order of `ARM` and `FINGERS`."""

    arm = mdp.JointPositionActionCfg(
        asset_name="robot", joint_names=ARM, scale=1.0, use_default_offset=False, preserve_order=True
    )
    fingers = mdp.JointPositionActionCfg(
        asset_name="robot", joint_names=FINGERS, scale=1.0, use_default_offset=False, preserve_order=True
    )


@configclass
class ObservationsCfg:
    """What a policy would see; the cameras are read by the recorder alone."""

    @configclass
    class PolicyCfg(ObservationGroupCfg):
        """States by name."""

        joint_pos = ObservationTermCfg(func=mdp.joint_pos)
        joint_vel = ObservationTermCfg(func=mdp.joint_vel)
        packet_pos = ObservationTermCfg(func=mdp.root_pos_w, params={"asset_cfg": SceneEntityCfg("packet")})

        def __post_init__(self):
            self.concatenate_terms = False
            self.enable_corruption = False

    policy: PolicyCfg = PolicyCfg()


@configclass
class EventsCfg:
    """Each episode begins at home, with the packet somewhere else."""

    home = EventTermCfg(func=mdp.reset_scene_to_default, mode="reset")
    packet = EventTermCfg(
        func=mdp.reset_root_state_uniform,
        mode="reset",
        params={
            "pose_range": {"x": (-0.04, 0.05), "y": (-0.05, 0.05), "yaw": (-0.4, 0.4)},
            "velocity_range": {},
            "asset_cfg": SceneEntityCfg("packet"),
        },
    )


def packet_in_tray(env: ManagerBasedRLEnv) -> torch.Tensor:
    """(N,) whether the packet lies in the tray, at rest, and the fingers are open."""
    packet, robot = env.scene["packet"].data, env.scene["robot"]
    place = packet.root_link_pose_w.torch[:, :3] - env.scene.env_origins
    inside = (place[:, :2] - torch.tensor(TRAY_AT[:2], device=place.device)).abs().max(1).values < 0.1
    still = packet.root_com_vel_w.torch.norm(dim=1) < 0.05
    fingers = [robot.joint_names.index(name) for name in FINGERS]
    opened = (robot.data.joint_pos.torch[:, fingers] > 0.035).all(1)
    return inside & still & opened & (place[:, 2] < 0.12)


@configclass
class TerminationsCfg:
    """`success` is the term that Isaac Lab's recorders ask for."""

    time_out = TerminationTermCfg(func=mdp.time_out, time_out=True)
    success = TerminationTermCfg(func=packet_in_tray)


@configclass
class PickPlaceEnvCfg(ManagerBasedRLEnvCfg):
    """20 control steps per second, 12 physics steps each."""

    scene: SceneCfg = SceneCfg(num_envs=2, env_spacing=3.0)
    actions: ActionsCfg = ActionsCfg()
    observations: ObservationsCfg = ObservationsCfg()
    events: EventsCfg = EventsCfg()
    terminations: TerminationsCfg = TerminationsCfg()
    rewards: object = None
    decimation: int = 12
    episode_length_s: float = 7.0

    def __post_init__(self):
        self.sim = SimulationCfg(
            dt=1 / 240,
            render_interval=self.decimation,
            device="cpu",
            physics=NewtonCfg(solver_cfg=MJWarpSolverCfg(cone="elliptic", impratio=10.0, integrator="implicitfast")),
        )


gymnasium.register(
    id=TASK,
    entry_point="isaaclab.envs:ManagerBasedRLEnv",
    kwargs={"env_cfg_entry_point": f"{__name__}:PickPlaceEnvCfg"},
    disable_env_checker=True,
)
