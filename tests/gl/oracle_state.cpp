// Random calls for the state of a context that belongs to no object.
#include "oracle.h"

namespace {

constexpr GLenum kCaps[] = {GL_BLEND,
                            GL_COLOR_LOGIC_OP,
                            GL_CULL_FACE,
                            GL_DEPTH_CLAMP,
                            GL_DEPTH_TEST,
                            GL_DITHER,
                            GL_FRAMEBUFFER_SRGB,
                            GL_LINE_SMOOTH,
                            GL_MULTISAMPLE,
                            GL_POLYGON_OFFSET_FILL,
                            GL_POLYGON_OFFSET_LINE,
                            GL_POLYGON_OFFSET_POINT,
                            GL_POLYGON_SMOOTH,
                            GL_PRIMITIVE_RESTART,
                            GL_PROGRAM_POINT_SIZE,
                            GL_SAMPLE_ALPHA_TO_COVERAGE,
                            GL_SAMPLE_ALPHA_TO_ONE,
                            GL_SAMPLE_COVERAGE,
                            GL_SAMPLE_MASK,
                            GL_SCISSOR_TEST,
                            GL_STENCIL_TEST,
                            GL_TEXTURE_CUBE_MAP_SEAMLESS,
                            GL_CLIP_DISTANCE0,
                            GL_CLIP_DISTANCE1};
constexpr GLenum kFixedCaps[] = {GL_ALPHA_TEST,
                                 GL_AUTO_NORMAL,
                                 GL_COLOR_MATERIAL,
                                 GL_COLOR_SUM,
                                 GL_FOG,
                                 GL_INDEX_LOGIC_OP,
                                 GL_LIGHT0,
                                 GL_LIGHT1,
                                 GL_LIGHTING,
                                 GL_LINE_STIPPLE,
                                 GL_MAP1_VERTEX_3,
                                 GL_MAP2_VERTEX_3,
                                 GL_NORMALIZE,
                                 GL_POINT_SMOOTH,
                                 GL_POINT_SPRITE,
                                 GL_RESCALE_NORMAL,
                                 GL_POLYGON_STIPPLE,
                                 GL_TEXTURE_1D,
                                 GL_TEXTURE_2D,
                                 GL_TEXTURE_3D,
                                 GL_TEXTURE_GEN_S,
                                 GL_TEXTURE_CUBE_MAP,
                                 GL_VERTEX_PROGRAM_TWO_SIDE};
constexpr GLenum kFactors[] = {GL_ZERO,           GL_ONE,
                               GL_SRC_COLOR,      GL_ONE_MINUS_DST_COLOR,
                               GL_SRC_ALPHA,      GL_ONE_MINUS_SRC_ALPHA,
                               GL_CONSTANT_COLOR, GL_SRC1_COLOR};
constexpr GLenum kEquations[] = {GL_FUNC_ADD, GL_FUNC_SUBTRACT, GL_FUNC_REVERSE_SUBTRACT, GL_MIN, GL_MAX};
constexpr GLenum kFunctions[] = {GL_NEVER,   GL_LESS,     GL_EQUAL,  GL_LEQUAL,
                                 GL_GREATER, GL_NOTEQUAL, GL_GEQUAL, GL_ALWAYS};
constexpr GLenum kOperations[] = {GL_KEEP, GL_ZERO, GL_REPLACE, GL_INCR, GL_DECR_WRAP, GL_INVERT};
constexpr GLenum kFaces[] = {GL_FRONT, GL_BACK, GL_FRONT_AND_BACK};
constexpr GLenum kStored[] = {GL_PACK_SWAP_BYTES,    GL_PACK_ROW_LENGTH,    GL_PACK_SKIP_ROWS,
                              GL_PACK_ALIGNMENT,     GL_PACK_IMAGE_HEIGHT,  GL_UNPACK_ALIGNMENT,
                              GL_UNPACK_SKIP_PIXELS, GL_UNPACK_ROW_LENGTH,  GL_UNPACK_LSB_FIRST,
                              GL_UNPACK_SKIP_IMAGES, GL_UNPACK_IMAGE_HEIGHT};
constexpr GLenum kHints[] = {GL_LINE_SMOOTH_HINT, GL_POLYGON_SMOOTH_HINT, GL_TEXTURE_COMPRESSION_HINT,
                             GL_FRAGMENT_SHADER_DERIVATIVE_HINT};

GLboolean coin(Dice& dice) { return static_cast<GLboolean>(dice.below(2)); }

void blending(Dice& dice) {
  switch (dice.below(6)) {
    case 0:
      return glBlendFunc(dice.one_of(kFactors), dice.one_of(kFactors));
    case 1: {
      const GLenum source = dice.one_of(kFactors), destination = dice.one_of(kFactors);
      return glBlendFuncSeparate(source, destination, dice.one_of(kFactors), dice.one_of(kFactors));
    }
    case 2:
      return glBlendEquation(dice.one_of(kEquations));
    case 3:
      return glBlendEquationSeparate(dice.one_of(kEquations), dice.one_of(kEquations));
    case 4:
      return glBlendColor(dice.fraction(), dice.fraction(), 0.5F, dice.fraction());
    default:
      return glLogicOp(GL_CLEAR + dice.below(16));
  }
}

void stencil_and_depth(Dice& dice) {
  switch (dice.below(9)) {
    case 0:
      return glStencilFunc(dice.one_of(kFunctions), dice.between(0, 255), dice.below(256));
    case 1:
      return glStencilFuncSeparate(dice.one_of(kFaces), dice.one_of(kFunctions), dice.between(0, 255),
                                   dice.below(256));
    case 2:
      return glStencilOp(dice.one_of(kOperations), dice.one_of(kOperations), GL_KEEP);
    case 3:
      return glStencilOpSeparate(dice.one_of(kFaces), dice.one_of(kOperations), GL_KEEP,
                                 dice.one_of(kOperations));
    case 4:
      return glStencilMask(dice.below(256));
    case 5:
      return glStencilMaskSeparate(dice.one_of(kFaces), dice.below(256));
    case 6:
      return glDepthFunc(dice.one_of(kFunctions));
    case 7:
      return glDepthMask(coin(dice));
    default:
      return glDepthRange(dice.fraction(), dice.fraction());
  }
}

void clear_values(Dice& dice) {
  switch (dice.below(3)) {
    case 0:
      return glClearColor(dice.fraction(), dice.fraction(), dice.fraction(), dice.fraction());
    case 1:
      return glClearDepth(dice.fraction());
    default:
      return glClearStencil(dice.between(0, 255));
  }
}

void rasterization(Dice& dice, bool core) {
  switch (dice.below(12)) {
    case 0:
      return glCullFace(dice.one_of(kFaces));
    case 1:
      return glFrontFace(dice.one_of({GL_CW, GL_CCW}));
    case 2:
      return glPolygonMode(core ? GLenum{GL_FRONT_AND_BACK} : dice.one_of(kFaces),
                           dice.one_of({GL_POINT, GL_LINE, GL_FILL}));
    case 3:
      return glPolygonOffset(dice.fraction(), dice.fraction());
    case 4:
      return glLineWidth(1 + dice.fraction());
    case 5:
      return glPointSize(1 + dice.fraction());
    case 6:
      return glScissor(dice.between(0, 9), dice.between(0, 9), dice.between(0, 99), dice.between(0, 99));
    case 7:
      return glViewport(dice.between(0, 9), dice.between(0, 9), dice.between(0, 99), dice.between(0, 99));
    case 8:
      return glSampleCoverage(dice.fraction(), coin(dice));
    case 9:
      return glSampleMaski(0, dice.below(16));
    case 10:
      return glProvokingVertex(dice.one_of({GL_FIRST_VERTEX_CONVENTION, GL_LAST_VERTEX_CONVENTION}));
    default:
      return dice.once_in(2)
                 ? glPointParameterf(GL_POINT_FADE_THRESHOLD_SIZE, dice.fraction())
                 : glPointParameteri(GL_POINT_SPRITE_COORD_ORIGIN,
                                     static_cast<GLint>(dice.one_of({GL_LOWER_LEFT, GL_UPPER_LEFT})));
  }
}

// Never so that rows or images overlap.
void pixel_store(Dice& dice) {
  const GLenum what = dice.one_of(kStored);
  switch (what) {
    case GL_PACK_ALIGNMENT:
    case GL_UNPACK_ALIGNMENT:
      return glPixelStorei(what, 1 << dice.below(4));
    case GL_PACK_ROW_LENGTH:
    case GL_UNPACK_ROW_LENGTH:
    case GL_PACK_IMAGE_HEIGHT:
    case GL_UNPACK_IMAGE_HEIGHT:
      return glPixelStorei(what, dice.once_in(2) ? 0 : 18);
    default:
      return glPixelStorei(what, dice.between(0, 1));
  }
}

}  // namespace

void call_state(const World& world, Dice& dice) {
  switch (dice.below(11)) {
    case 0:
      return glEnable(dice.one_of(kCaps));
    case 1:
      return glDisable(dice.one_of(kCaps));
    case 2:
      return dice.once_in(2) ? glEnablei(GL_BLEND, dice.below(kColors))
                             : glDisablei(GL_BLEND, dice.below(kColors));
    case 3:
      return dice.once_in(2)
                 ? glColorMask(coin(dice), coin(dice), coin(dice), coin(dice))
                 : glColorMaski(dice.below(kColors), coin(dice), coin(dice), coin(dice), coin(dice));
    case 4:
      return blending(dice);
    case 5:
      return stencil_and_depth(dice);
    case 6:
      return clear_values(dice);
    case 7:
      return rasterization(dice, world.core);
    case 8:
      return pixel_store(dice);
    case 9:
      return dice.once_in(2)
                 ? glHint(dice.one_of(kHints), dice.one_of({GL_FASTEST, GL_NICEST}))
                 : glClampColor(GL_CLAMP_READ_COLOR, dice.one_of({GL_TRUE, GL_FALSE, GL_FIXED_ONLY}));
    default:
      return glPrimitiveRestartIndex(dice.below(999));
  }
}

namespace {

struct Four {
  GLfloat value[4];
};
Four four(Dice& dice) { return {{dice.fraction(), dice.fraction(), dice.fraction(), dice.fraction()}}; }

void lighting(Dice& dice) {
  const Four value = four(dice);
  const GLenum light = GL_LIGHT0 + dice.below(2);
  switch (dice.below(9)) {
    case 0:
      return glLightfv(light, dice.one_of({GL_AMBIENT, GL_DIFFUSE, GL_SPECULAR}), value.value);
    case 1:
      return glLightfv(light, dice.one_of({GL_POSITION, GL_SPOT_DIRECTION}), value.value);
    case 2:
      return glLightf(light, dice.one_of({GL_SPOT_EXPONENT, GL_LINEAR_ATTENUATION}), dice.fraction());
    case 3:
      return glLightModelfv(GL_LIGHT_MODEL_AMBIENT, value.value);
    case 4:
      return glLightModeli(dice.one_of({GL_LIGHT_MODEL_TWO_SIDE, GL_LIGHT_MODEL_LOCAL_VIEWER}),
                           dice.between(0, 1));
    case 5:
      return glMaterialfv(dice.one_of(kFaces), dice.one_of({GL_AMBIENT, GL_SPECULAR, GL_AMBIENT_AND_DIFFUSE}),
                          value.value);
    case 6:
      return glMaterialf(dice.one_of(kFaces), GL_SHININESS, dice.fraction() * 100);
    case 7:
      return glColorMaterial(dice.one_of(kFaces), dice.one_of({GL_AMBIENT, GL_DIFFUSE, GL_EMISSION}));
    default:
      return glShadeModel(dice.one_of({GL_FLAT, GL_SMOOTH}));
  }
}

void matrices(Dice& dice) {
  switch (dice.below(8)) {
    case 0:
    case 1:
      return glMatrixMode(dice.one_of({GL_MODELVIEW, GL_PROJECTION, GL_TEXTURE}));
    case 2:
      return glLoadIdentity();
    case 3:
      return glTranslatef(dice.fraction(), dice.fraction(), 0);
    case 4:
      return glScalef(1, 2, 0.5F);
    case 5: {
      GLfloat matrix[16];
      for (GLfloat& one : matrix) one = dice.fraction();
      return dice.once_in(2) ? glLoadMatrixf(matrix) : glMultMatrixf(matrix);
    }
    case 6:
      return glPushMatrix();
    default:
      return glPopMatrix();
  }
}

void texturing(Dice& dice) {
  const Four value = four(dice);
  glActiveTexture(GL_TEXTURE0 + dice.below(kUnits));
  switch (dice.below(6)) {
    case 0:
      return glTexEnvi(GL_TEXTURE_ENV, GL_TEXTURE_ENV_MODE,
                       static_cast<GLint>(dice.one_of({GL_MODULATE, GL_DECAL, GL_REPLACE, GL_COMBINE})));
    case 1:
      return glTexEnvfv(GL_TEXTURE_ENV, GL_TEXTURE_ENV_COLOR, value.value);
    case 2:
      return glTexEnvf(GL_TEXTURE_FILTER_CONTROL, GL_TEXTURE_LOD_BIAS, dice.fraction());
    case 3:
      return glTexGeni(dice.one_of({GL_S, GL_T, GL_R}), GL_TEXTURE_GEN_MODE,
                       static_cast<GLint>(dice.one_of({GL_OBJECT_LINEAR, GL_EYE_LINEAR, GL_NORMAL_MAP})));
    case 4:
      return glTexGenfv(dice.one_of({GL_S, GL_T}), GL_OBJECT_PLANE, value.value);
    default:
      return glTexEnvi(GL_POINT_SPRITE, GL_COORD_REPLACE, dice.between(0, 1));
  }
}

void current_values(Dice& dice) {
  const Four value = four(dice);
  switch (dice.below(8)) {
    case 0:
      return glColor4fv(value.value);
    case 1:
      return glSecondaryColor3fv(value.value);
    case 2:
      return glNormal3fv(value.value);
    case 3:
      return glFogCoordf(value.value[0]);
    case 4:
      return glEdgeFlag(coin(dice));
    case 5:
      return glIndexf(value.value[0]);
    case 6:
      return glMultiTexCoord4fv(GL_TEXTURE0 + dice.below(kUnits), value.value);
    default:
      return glWindowPos3fv(value.value);
  }
}

void pixel_paths(Dice& dice) {
  constexpr GLenum kScales[] = {GL_RED_SCALE, GL_GREEN_BIAS, GL_ALPHA_SCALE, GL_DEPTH_BIAS};
  constexpr GLenum kMaps[] = {GL_PIXEL_MAP_R_TO_R, GL_PIXEL_MAP_I_TO_G, GL_PIXEL_MAP_A_TO_A};
  switch (dice.below(6)) {
    case 0:
      return glPixelTransferf(dice.one_of(kScales), dice.fraction());
    case 1:
      return glPixelTransferi(dice.one_of({GL_MAP_COLOR, GL_MAP_STENCIL}), dice.between(0, 1));
    case 2: {
      const GLsizei count = 1 << dice.below(4);
      std::vector<GLfloat> values(static_cast<size_t>(count));
      for (GLfloat& one : values) one = dice.fraction();
      return glPixelMapfv(dice.one_of(kMaps), count, values.data());
    }
    case 3:
      return glPixelZoom(1 + dice.fraction(), 1);
    case 4:
      // What is kept has no gaps: the program's pixel store may say what it likes.
      return glPolygonStipple(dice.bytes(512).data());
    default:
      return glAlphaFunc(dice.one_of(kFunctions), dice.fraction());
  }
}

void evaluators(Dice& dice) {
  GLfloat points[16 * 3];
  for (GLfloat& one : points) one = dice.fraction();
  switch (dice.below(4)) {
    case 0:
      return glMap1f(GL_MAP1_VERTEX_3, 0, 1, 3, dice.between(1, 4), points);
    case 1:
      return glMap2f(GL_MAP2_VERTEX_3, 0, 1, 3, dice.between(1, 4), 0, 1, 12, dice.between(1, 4), points);
    case 2:
      return glMapGrid1f(dice.between(1, 9), 0, 1);
    default:
      return glMapGrid2f(dice.between(1, 9), 0, 1, 4, 0, dice.fraction());
  }
}

void lists(World& world, Dice& dice) {
  const GLuint list = dice.one_of(world.lists);
  switch (dice.below(3)) {
    case 0: {
      glNewList(list, dice.one_of({GL_COMPILE, GL_COMPILE_AND_EXECUTE}));
      const GLuint before = list == world.lists[0] ? 0 : list - 1;
      for (int i = 0; i < 3; ++i) {
        lighting(dice);
        current_values(dice);
        blending(dice);
      }
      if (before != 0) glCallList(before);
      return glEndList();
    }
    case 1:
      return glCallList(list);
    default:
      return glListBase(dice.below(9));
  }
}

void fog_and_planes(Dice& dice) {
  const Four value = four(dice);
  const GLdouble plane[] = {value.value[0], value.value[1], value.value[2], 1};
  switch (dice.below(7)) {
    case 0:
      return glFogfv(GL_FOG_COLOR, value.value);
    case 1:
      return glFogi(GL_FOG_MODE, static_cast<GLint>(dice.one_of({GL_LINEAR, GL_EXP})));
    case 2:
      return glFogf(dice.one_of({GL_FOG_DENSITY, GL_FOG_START, GL_FOG_END}), dice.fraction());
    case 3:
      return glClipPlane(GL_CLIP_PLANE0 + dice.below(2), plane);
    case 4:
      return glLineStipple(dice.between(1, 9), static_cast<GLushort>(dice.below(65536)));
    case 5:
      return glClearAccum(dice.fraction(), 0, dice.fraction(), 1);
    default:
      return glClampColor(dice.one_of({GL_CLAMP_VERTEX_COLOR, GL_CLAMP_FRAGMENT_COLOR}), GL_TRUE);
  }
}

}  // namespace

void call_fixed(World& world, Dice& dice) {
  constexpr GLbitfield kMasks[] = {GL_ALL_ATTRIB_BITS, GL_ENABLE_BIT,  GL_TEXTURE_BIT,   GL_LIGHTING_BIT,
                                   GL_CURRENT_BIT,     GL_POLYGON_BIT, GL_TRANSFORM_BIT, GL_COLOR_BUFFER_BIT};
  switch (dice.below(14)) {
    case 0:
      return glEnable(dice.one_of(kFixedCaps));
    case 1:
      return glDisable(dice.one_of(kFixedCaps));
    case 2:
      return glPushAttrib(dice.one_of(kMasks));
    case 3:
      return glPopAttrib();
    case 4:
    case 5:
      return matrices(dice);
    case 6:
      return lighting(dice);
    case 7:
      return texturing(dice);
    case 8:
      return current_values(dice);
    case 9:
      return pixel_paths(dice);
    case 10:
      return evaluators(dice);
    case 11:
      return lists(world, dice);
    case 12:
      return fog_and_planes(dice);
    default:
      return dice.once_in(2) ? glPushClientAttrib(GL_CLIENT_ALL_ATTRIB_BITS) : glPopClientAttrib();
  }
}
