// Draws packed Gaussians with WebGL2, by the rules of gaussians/projection.py and gaussians/tiles.py.

const WORDS = 5;
const GAUSSIANS_IN_ROW = 400;

const VERTEX = `#version 300 es
precision highp float;
precision highp int;
precision highp usampler2D;

const float NEAR = 0.2;
const float DILATION_PX2 = 0.3;
const float SLOPE_MARGIN = 0.15;

uniform usampler2D cloud;       // five words a Gaussian, see scene.py
uniform vec3 boxLow, boxSize;
uniform vec2 logScales;         // smallest, range
uniform float colorMax;
uniform mat3 worldToCamera;
uniform vec3 center;            // of the camera, in the world
uniform vec2 size;              // of the picture in pixels
uniform float focal;            // in pixels

layout(location = 0) in uint index;
out vec2 deviations;
flat out vec4 color;

uint word(int number) {
  int i = int(index);
  return texelFetch(cloud, ivec2(${WORDS} * (i % ${GAUSSIANS_IN_ROW}) + number, i / ${GAUSSIANS_IN_ROW}), 0).r;
}

vec2 halves(uint bits) {
  return vec2(bits & 65535u, bits >> 16) / 65535.0;
}

// Rotation by the quaternion whose largest component is not stored.
mat3 rotation(uint bits) {
  vec3 s = (vec3(bits & 1023u, bits >> 10 & 1023u, bits >> 20 & 1023u) / 1023.0 - 0.5) * sqrt(2.0);
  float l = sqrt(max(0.0, 1.0 - dot(s, s)));
  uint largest = bits >> 30;
  vec4 q = largest == 0u ? vec4(l, s) : largest == 1u ? vec4(s.x, l, s.yz)
    : largest == 2u ? vec4(s.xy, l, s.z) : vec4(s, l);
  float w = q.x, x = q.y, y = q.z, z = q.w;
  return mat3(
    1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y + w * z), 2.0 * (x * z - w * y),
    2.0 * (x * y - w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z + w * x),
    2.0 * (x * z + w * y), 2.0 * (y * z - w * x), 1.0 - 2.0 * (x * x + y * y));
}

void main() {
  vec2 xy = halves(word(0)), za = halves(word(1)), bc = halves(word(2));
  uint rgba = word(4);
  color = vec4(rgba & 255u, rgba >> 8 & 255u, rgba >> 16 & 255u, rgba >> 24) / 255.0;
  color.rgb *= colorMax;
  vec3 point = worldToCamera * (boxLow + boxSize * vec3(xy, za.x) - center);
  gl_Position = vec4(0.0, 0.0, 2.0, 1.0); // outside the picture
  if (point.z <= NEAR || color.a < 1.0 / 255.0) return;

  // Zwicker et al., "EWA Splatting": u and v are the rows of J W R S.
  vec3 scales = exp(logScales.x + logScales.y * vec3(za.y, bc));
  mat3 axes = worldToCamera * rotation(word(3));
  axes = transpose(mat3(axes[0] * scales.x, axes[1] * scales.y, axes[2] * scales.z));
  vec2 slope = point.xy / point.z;
  vec2 limit = (0.5 + SLOPE_MARGIN) * size / focal;
  vec2 limited = clamp(slope, -limit, limit);
  vec3 u = focal / point.z * (axes[0] - limited.x * axes[2]);
  vec3 v = focal / point.z * (axes[1] - limited.y * axes[2]);
  float xx = dot(u, u) + DILATION_PX2, yy = dot(v, v) + DILATION_PX2, mixed = dot(u, v);

  // Variances along the splat's own axes; the smaller one from the determinant, where nothing cancels.
  vec3 area = cross(u, v);
  float determinant = dot(area, area) + DILATION_PX2 * (xx + yy - DILATION_PX2);
  float major = 0.5 * (xx + yy) + length(vec2(0.5 * (xx - yy), mixed));
  float minor = determinant / major;
  vec2 axis = xx >= yy ? vec2(major - yy, mixed) : vec2(mixed, major - xx);
  axis = dot(axis, axis) > 0.0 ? normalize(axis) : vec2(1.0, 0.0);

  // As far as alpha stays above 1/255.
  vec2 corner = vec2(gl_VertexID & 1, gl_VertexID >> 1) * 2.0 - 1.0;
  deviations = corner * sqrt(2.0 * log(color.a * 255.0));
  vec2 offset = deviations.x * sqrt(major) * axis + deviations.y * sqrt(minor) * vec2(-axis.y, axis.x);
  vec2 pixel = focal * slope + offset;
  gl_Position = vec4(2.0 * pixel / size * vec2(1.0, -1.0), 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 deviations;
flat in vec4 color;
out vec4 premultiplied;

void main() {
  float alpha = color.a * exp(-0.5 * dot(deviations, deviations));
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.999);
  premultiplied = vec4(color.rgb * alpha, alpha);
}`;

/** Gaussians on the graphics card. */
class Cloud {
  constructor(gl) {
    this.gl = gl;
    this.texture = gl.createTexture();
    this.order = gl.createBuffer();
    this.count = 0;
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) {
      gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    }
  }

  /** Takes another scene; it is drawn once an order follows. */
  load(header, words) {
    const { gl } = this;
    const width = WORDS * GAUSSIANS_IN_ROW, height = Math.max(1, Math.ceil(words.length / width));
    const most = gl.getParameter(gl.MAX_TEXTURE_SIZE);
    if (height > most) {
      throw new Error(`This graphics card takes at most ${most * GAUSSIANS_IN_ROW} Gaussians. Pack fewer.`);
    }
    const padded = new Uint32Array(width * height);
    padded.set(words);
    gl.bindTexture(gl.TEXTURE_2D, this.texture);
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.R32UI, width, height, 0, gl.RED_INTEGER, gl.UNSIGNED_INT, padded);
    this.header = header;
    this.count = 0;
  }

  setOrder(order) {
    const { gl } = this;
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order);
    gl.bufferData(gl.ARRAY_BUFFER, order, gl.DYNAMIC_DRAW);
    this.count = order.length;
  }
}

/** A canvas with pictures of clouds side by side. */
class Painter {
  /** @throws {Error} with words for the reader where WebGL2 is missing. */
  constructor(canvas) {
    const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, depth: false });
    if (!gl) {
      throw new Error(
        "This browser cannot draw the 3D view, because WebGL2 is missing or switched off. " +
          "Use a current Firefox, Chrome, Edge or Safari and allow hardware acceleration in its settings.");
    }
    this.gl = gl;
    this.canvas = canvas;
    this.target = null;
    this.sized = false;
    this.program = this.link(VERTEX, FRAGMENT);
    const count = gl.getProgramParameter(this.program, gl.ACTIVE_UNIFORMS);
    this.uniforms = {};
    for (let i = 0; i < count; i++) {
      const { name } = gl.getActiveUniform(this.program, i);
      this.uniforms[name] = gl.getUniformLocation(this.program, name);
    }
    // Hundreds of layers of 8 bits would add up their rounding, and cut off colours above 1.
    if (gl.getExtension("EXT_color_buffer_float") || gl.getExtension("EXT_color_buffer_half_float")) {
      this.target = gl.createFramebuffer();
      this.pixels = gl.createRenderbuffer();
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
      gl.bindRenderbuffer(gl.RENDERBUFFER, this.pixels);
      gl.framebufferRenderbuffer(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.RENDERBUFFER, this.pixels);
    }
  }

  link(...sources) {
    const { gl } = this;
    const program = gl.createProgram();
    [gl.VERTEX_SHADER, gl.FRAGMENT_SHADER].forEach((kind, i) => {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, sources[i]);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
      const problem = gl.getShaderInfoLog(shader);
      if (problem && !gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(problem);
    });
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    return program;
  }

  resize(wantedWidth, wantedHeight) {
    const { gl, canvas } = this;
    // On a page that is zoomed out, half a pixel is left of the smallest canvas.
    const width = Math.max(1, wantedWidth), height = Math.max(1, wantedHeight);
    if (canvas.width === width && canvas.height === height && this.sized) return;
    this.sized = true;
    canvas.width = width;
    canvas.height = height;
    if (this.target) {
      gl.bindRenderbuffer(gl.RENDERBUFFER, this.pixels);
      gl.renderbufferStorage(gl.RENDERBUFFER, gl.RGBA16F, width, height);
      gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
      if (gl.checkFramebufferStatus(gl.FRAMEBUFFER) !== gl.FRAMEBUFFER_COMPLETE) this.target = null;
    }
  }

  /** Draws clouds in equal columns, all from one camera, on a grey level. */
  draw(clouds, camera, background) {
    const { gl, canvas } = this;
    gl.bindFramebuffer(gl.FRAMEBUFFER, this.target);
    gl.clearColor(background, background, background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    clouds.forEach((cloud, column) => {
      const left = Math.round((column * canvas.width) / clouds.length);
      const right = Math.round(((column + 1) * canvas.width) / clouds.length);
      gl.viewport(left, 0, right - left, canvas.height);
      this.drawCloud(cloud, camera, right - left, canvas.height);
    });
    if (this.target) {
      const { width, height } = canvas;
      gl.bindFramebuffer(gl.READ_FRAMEBUFFER, this.target);
      gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null);
      gl.blitFramebuffer(0, 0, width, height, 0, 0, width, height, gl.COLOR_BUFFER_BIT, gl.NEAREST);
    }
  }

  drawCloud(cloud, camera, width, height) {
    const { gl, uniforms } = this;
    const { box, log_scales: logScales, color_max: colorMax } = cloud.header;
    const rows = camera.rows();
    gl.uniform3fv(uniforms.boxLow, box[0]);
    gl.uniform3fv(uniforms.boxSize, box[1]);
    gl.uniform2fv(uniforms.logScales, logScales);
    gl.uniform1f(uniforms.colorMax, colorMax);
    gl.uniformMatrix3fv(uniforms.worldToCamera, true, rows.flat());
    gl.uniform3fv(uniforms.center, camera.center());
    gl.uniform2f(uniforms.size, width, height);
    gl.uniform1f(uniforms.focal, camera.focal * Math.min(width, height));
    gl.bindTexture(gl.TEXTURE_2D, cloud.texture);
    gl.bindBuffer(gl.ARRAY_BUFFER, cloud.order);
    gl.enableVertexAttribArray(0);
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0);
    gl.vertexAttribDivisor(0, 1);
    gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, cloud.count);
  }
}
