"""Writes the files of a demo scan, with ScanNet's names and formats."""

import io
import json
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pri3d.demo import sensor, shading
from pri3d.demo.classes import CLASSES
from pri3d.demo.mesh import Mesh
from pri3d.demo.room import Room
from pri3d.store import atomic_path

SUFFIXES = {
    "surface": "_vh_clean_2.ply",
    "labels": "_vh_clean_2.labels.ply",
    "segments": "_vh_clean_2.0.010000.segs.json",
    "aggregation": ".aggregation.json",
    "info": ".txt",
    "label_images": "_2d-label-filt.zip",
    "instance_images": "_2d-instance-filt.zip",
    "sens": ".sens",
}


def file(root: Path, scene: str, part: str) -> Path:
    """The path of a file of a scan; part: a key of SUFFIXES."""
    return Path(root) / scene / f"{scene}{SUFFIXES[part]}"


def surface(root: Path, scene: str, room: Room, mesh: Mesh, instance: np.ndarray) -> None:
    """Write the colored mesh, its labels, its segments (the charts) and their objects.

    Args:
        root: folder of the scans.
        scene: id of the scan.
        room: with baked light.
        mesh: V vertices.
        instance: the object of each vertex [V], from 1.
    """
    radiance = shading.shade(room, mesh.primitive, mesh.points)
    color = sensor.develop(radiance)
    columns = {"x": "<f4", "y": "<f4", "z": "<f4", "red": "u1", "green": "u1", "blue": "u1"}
    columns["alpha"] = "u1"
    vertex = np.zeros(len(mesh.points), [*columns.items(), ("label", "<u2")])
    for i, name in enumerate("xyz"):
        vertex[name] = mesh.points[:, i]
    for i, name in enumerate(("red", "green", "blue")):
        vertex[name] = color[:, i]
    vertex["alpha"] = 255
    names = np.array(room.names)[room.instance[mesh.primitive] - 1]
    nyu40 = {name: entry.nyu40 for name, entry in CLASSES.items()}
    for name in np.unique(names):
        vertex["label"][names == name] = nyu40[name]
    unlabeled = np.zeros(len(vertex), list(columns.items()))
    for name in columns:
        unlabeled[name] = vertex[name]
    _ply(file(root, scene, "surface"), unlabeled, mesh.triangles)
    _ply(file(root, scene, "labels"), vertex, mesh.triangles)

    charts, segment = np.unique(mesh.chart, return_inverse=True)
    segments = {
        "params": {"kThresh": "0.0001", "segMinVerts": "20", "minPoints": "750"},
        "sceneId": scene,
        "segIndices": segment.tolist(),
    }
    first = np.searchsorted(segment, np.arange(len(charts)))  # charts are runs of vertices
    groups = []
    for number in np.unique(instance):
        groups.append(
            {
                "id": int(number) - 1,
                "objectId": int(number) - 1,
                "segments": np.flatnonzero(instance[first] == number).tolist(),
                "label": str(names[np.argmax(instance == number)]),
            }
        )
    aggregation = {
        "sceneId": f"scannet.{scene}",
        "appId": "Aggregator.v2",
        "segGroups": groups,
        "segmentsFile": f"scannet.{scene}{SUFFIXES['segments']}",
    }
    _text(file(root, scene, "segments"), json.dumps(segments))
    _text(file(root, scene, "aggregation"), json.dumps(aggregation))


def _ply(path: Path, vertex: np.ndarray, triangles: np.ndarray) -> None:
    """Write a binary little-endian PLY with the header of ScanNet's files."""
    ply_types = {"<f4": "float", "|u1": "uchar", "<u2": "ushort"}
    names = vertex.dtype.names or ()
    comments = ["comment VCGLIB generated"]
    if "label" in names:
        comments.append("comment MLIB generated")
    face = np.zeros(len(triangles), [("count", "u1"), ("vertex", "<i4", 3)])
    face["count"], face["vertex"] = 3, triangles
    properties = [f"property {ply_types[vertex.dtype[name].str]} {name}" for name in names]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        *comments,
        f"element vertex {len(vertex)}",
        *properties,
        f"element face {len(face)}",
        "property list uchar int vertex_indices",
        "end_header",
    ]
    with atomic_path(path) as temporary:
        temporary.write_bytes(
            ("\n".join(header) + "\n").encode() + vertex.tobytes() + face.tobytes()
        )


def _text(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(text.encode())


def images(path: Path, folder: str, frames: Iterable[np.ndarray]) -> None:
    """Write images, u8 or u16 [H, W], into a zip as `<folder>/<frame>.png`."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for number, image in enumerate(frames):
            png = io.BytesIO()
            Image.fromarray(image).save(png, "PNG", compress_level=3)
            # The date is fixed because the bytes must not depend on the time.
            entry = zipfile.ZipInfo(f"{folder}/{number}.png", (1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, png.getvalue())


def info(root: Path, scene: str, room: Room, rig: sensor.Rig, frames: int) -> None:
    """Write `<scene>.txt`: sizes, intrinsics, extrinsics, and the alignment with the room."""

    def numbers(matrix: np.ndarray) -> str:
        return " ".join(f"{value:.9g}" for value in np.asarray(matrix).ravel())

    color, depth = rig.color_intrinsic, rig.depth_intrinsic
    values = {
        "axisAlignment": numbers(room.room_from_world),
        "colorHeight": rig.color_shape[0],
        "colorToDepthExtrinsics": numbers(np.linalg.inv(rig.color_from_depth)),
        "colorWidth": rig.color_shape[1],
        "depthHeight": rig.depth_shape[0],
        "depthWidth": rig.depth_shape[1],
        "fx_color": f"{color[0, 0]:.6f}",
        "fx_depth": f"{depth[0, 0]:.6f}",
        "fy_color": f"{color[1, 1]:.6f}",
        "fy_depth": f"{depth[1, 1]:.6f}",
        "mx_color": f"{color[0, 2]:.6f}",
        "mx_depth": f"{depth[0, 2]:.6f}",
        "my_color": f"{color[1, 2]:.6f}",
        "my_depth": f"{depth[1, 2]:.6f}",
        "numColorFrames": frames,
        "numDepthFrames": frames,
        "numIMUmeasurements": 0,
        "sceneType": room.kind,
    }
    _text(file(root, scene, "info"), "".join(f"{key} = {value}\n" for key, value in values.items()))
