// SPDX-License-Identifier: Apache-2.0
// The other end of `three_painter.py`, in a page: `build` makes a scene, `picture` gives a window of a frame and its ids.

import * as THREE from "three";
import { MeshoptSimplifier } from "meshoptimizer";
import { toCreasedNormals } from "three/addons/utils/BufferGeometryUtils.js";

const NEAR = 0.02, FAR = 12, LOWEST = -1;
const TONES = {
  aces: THREE.ACESFilmicToneMapping, agx: THREE.AgXToneMapping, neutral: THREE.NeutralToneMapping,
  reinhard: THREE.ReinhardToneMapping, plain: THREE.LinearToneMapping,
};
let renderer, scene, marks, camera, target, owners = [], kept = 0;

const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const floats = (text) => new Float32Array(bytes(text).buffer);

// A repeating texture of sRGB bytes, or a panorama of linear floats; rows from the bottom up.
function textureOf(image) {
  const drawn = image.kind === "floats";
  const made = new THREE.DataTexture(
    drawn ? floats(image.data) : bytes(image.data), image.width, image.height, THREE.RGBAFormat,
    drawn ? THREE.FloatType : THREE.UnsignedByteType);
  made.colorSpace = drawn ? THREE.LinearSRGBColorSpace : THREE.SRGBColorSpace;
  made.magFilter = THREE.LinearFilter;
  made.minFilter = drawn ? THREE.LinearFilter : THREE.LinearMipmapLinearFilter;
  made.generateMipmaps = !drawn;
  made.wrapS = THREE.RepeatWrapping;
  made.wrapT = drawn ? THREE.ClampToEdgeWrapping : THREE.RepeatWrapping;
  made.needsUpdate = true;
  return made;
}

function geometryOf(item) {
  const made = new THREE.BufferGeometry();
  const vertices = floats(item.vertices);
  let faces = new Uint32Array(bytes(item.faces).buffer);
  // Fewer triangles where none of them moves the surface by more than this.
  if (item.error_m > 0) {
    [faces] = MeshoptSimplifier.simplify(faces, vertices, 3, 0, item.error_m, ["ErrorAbsolute"]);
  }
  kept += faces.length / 3;
  made.setAttribute("position", new THREE.BufferAttribute(vertices, 3));
  made.setAttribute("uv", new THREE.BufferAttribute(floats(item.uv), 2));
  made.setIndex(new THREE.BufferAttribute(faces, 1));
  return toCreasedNormals(made, 0.6);
}

function lampOf(told, size) {
  const parallel = told.cone_deg === 0;
  const colour = new THREE.Color().setRGB(...told.colour);
  const at = new THREE.Vector3(...told.at), towards = new THREE.Vector3(...told.towards);
  // What arrives at the point it looks at is the same for every distance.
  const lamp = parallel
    ? new THREE.DirectionalLight(colour, Math.PI)
    : new THREE.SpotLight(colour, Math.PI * at.distanceToSquared(towards), 0, told.cone_deg * Math.PI / 180, told.soft);
  lamp.position.copy(at);
  lamp.target.position.copy(towards);
  lamp.castShadow = true;
  lamp.shadow.mapSize.set(size, size);
  lamp.shadow.bias = -0.0004;
  lamp.shadow.normalBias = 0.008;
  lamp.shadow.radius = 1 + 3 * told.soft;
  lamp.shadow.camera.near = 0.2;
  lamp.shadow.camera.far = at.distanceTo(towards) + 2.5;
  if (parallel) Object.assign(lamp.shadow.camera, { left: -1.6, right: 1.6, bottom: -1.6, top: 1.6 });
  if (told.gobo && !parallel) lamp.map = textureOf(told.gobo);
  scene.add(lamp, lamp.target);
}

window.build = async (told) => {
  await MeshoptSimplifier.ready;
  const [width, height] = told.size;
  const canvas = new OffscreenCanvas(width, height);
  renderer = new THREE.WebGLRenderer({ canvas, antialias: true });
  renderer.setSize(width, height, false);
  renderer.shadowMap.enabled = true;
  renderer.shadowMap.type = THREE.PCFShadowMap;
  renderer.toneMapping = TONES[told.tone];
  renderer.toneMappingExposure = told.exposure;
  target = new THREE.WebGLRenderTarget(width, height, { magFilter: THREE.NearestFilter, minFilter: THREE.NearestFilter });
  scene = new THREE.Scene();
  marks = new THREE.Scene();
  camera = new THREE.PerspectiveCamera();
  camera.matrixAutoUpdate = false;
  const panorama = textureOf(told.panorama);
  panorama.mapping = THREE.EquirectangularReflectionMapping;
  const makes = new THREE.PMREMGenerator(renderer);
  const around = makes.fromEquirectangular(panorama).texture;
  scene.background = new THREE.Color().setRGB(...told.ground);
  scene.add(new THREE.HemisphereLight(
    new THREE.Color().setRGB(...told.sky), new THREE.Color().setRGB(...told.ground), Math.PI));
  for (const light of scene.children) light.position.set(0, 0, 1);
  for (const lamp of told.lamps) lampOf(lamp, told.shadow_px);
  const textures = told.textures.map(textureOf);
  owners = told.owners.map((_, k) => {
    const pair = [new THREE.Group(), new THREE.Group()];
    scene.add(pair[0]);
    marks.add(pair[1]);
    for (const group of pair) group.matrixAutoUpdate = false;
    const flat = new THREE.MeshBasicMaterial({ side: THREE.DoubleSide });
    flat.color.setRGB((k + 1) / 255, 0, 0);
    return { pair, flat };
  });
  for (const item of told.items) {
    const geometry = geometryOf(item);
    // Of what is closed no back is seen; shadows are cast by both sides as before.
    const sides = { side: item.closed ? THREE.FrontSide : THREE.DoubleSide, shadowSide: THREE.DoubleSide };
    const plain = { ...sides, map: item.texture === null ? null : textures[item.texture] };
    // What is matt needs no more than Lambert's law.
    const look = item.matt ? new THREE.MeshLambertMaterial(plain) : new THREE.MeshStandardMaterial({
      ...plain, roughness: item.roughness, metalness: item.metallic, envMap: item.mirrors ? around : null,
      envMapIntensity: told.mirrored,
    });
    look.color.setRGB(...item.colour);
    const mesh = new THREE.Mesh(geometry, look);
    mesh.castShadow = item.casts;
    mesh.receiveShadow = true;
    owners[item.owner].pair[0].add(mesh);
    owners[item.owner].pair[1].add(new THREE.Mesh(geometry, owners[item.owner].flat));
  }
  return kept;
};

window.picture = (told) => {
  told.poses.forEach((pose, k) => {
    for (const group of owners[k].pair) {
      group.visible = pose[14] > LOWEST;
      group.matrix.fromArray(pose);
      group.matrixWorldNeedsUpdate = true;
    }
  });
  camera.matrix.fromArray(told.camera);
  camera.matrixWorldNeedsUpdate = true;
  camera.projectionMatrix.fromArray(told.projection);
  camera.projectionMatrixInverse.copy(camera.projectionMatrix).invert();
  const [x, y, width, height] = told.window;
  const gl = renderer.getContext();
  renderer.setRenderTarget(null);
  renderer.setScissorTest(true);
  // WebGL counts rows from the bottom.
  const low = target.height - y - height;
  renderer.setScissor(x, low, width, height);
  renderer.render(scene, camera);
  const rgb = new Uint8Array(width * height * 4);
  gl.readPixels(x, low, width, height, gl.RGBA, gl.UNSIGNED_BYTE, rgb);
  target.scissorTest = true;
  target.scissor.set(x, low, width, height);
  renderer.setRenderTarget(target);
  renderer.shadowMap.autoUpdate = false;
  renderer.render(marks, camera);
  renderer.shadowMap.autoUpdate = true;
  const ids = new Uint8Array(width * height * 4);
  renderer.readRenderTargetPixels(target, x, low, width, height, ids);
  for (let k = 0; k < width * height; k += 1) rgb[4 * k + 3] = ids[4 * k];
  return rgb.toBase64 ? rgb.toBase64() : btoa(Array.from(rgb, (c) => String.fromCharCode(c)).join(""));
};

window.ready = true;
