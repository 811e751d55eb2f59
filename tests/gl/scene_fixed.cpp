// The fixed function.
#include "scene.h"

namespace {

GLuint textures[3], list, program, buffers[2];

void set_up_textures() {
  glGenTextures(3, textures);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MAG_FILTER, GL_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(32, 32, 1).data());
  // A part of a larger image, twice at the same place.
  glPixelStorei(GL_UNPACK_ROW_LENGTH, 20);
  glPixelStorei(GL_UNPACK_SKIP_ROWS, 2);
  glPixelStorei(GL_UNPACK_SKIP_PIXELS, 3);
  glTexSubImage2D(GL_TEXTURE_2D, 0, 4, 4, 10, 10, GL_RGB, GL_UNSIGNED_BYTE, pattern(20, 20, 99).data());
  glTexSubImage2D(GL_TEXTURE_2D, 0, 4, 4, 10, 10, GL_RGB, GL_UNSIGNED_BYTE, pattern(20, 20, 170).data());
  glPixelStorei(GL_UNPACK_ROW_LENGTH, 0);
  glPixelStorei(GL_UNPACK_SKIP_ROWS, 0);
  glPixelStorei(GL_UNPACK_SKIP_PIXELS, 0);
  glBindTexture(GL_TEXTURE_2D, textures[1]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_LINEAR_MIPMAP_NEAREST);
  glTexParameteri(GL_TEXTURE_2D, GL_GENERATE_MIPMAP, GL_TRUE);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 64, 64, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(64, 64, 5).data());
  glActiveTexture(GL_TEXTURE1);
  glBindTexture(GL_TEXTURE_2D, textures[1]);
  glTexEnvi(GL_TEXTURE_ENV, GL_TEXTURE_ENV_MODE, GL_ADD);
  glActiveTexture(GL_TEXTURE0);
  glTexEnvi(GL_TEXTURE_ENV, GL_TEXTURE_ENV_MODE, GL_MODULATE);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  // One that is deleted again leaves nothing.
  glBindTexture(GL_TEXTURE_2D, textures[2]);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB, 32, 32, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(32, 32, 9).data());
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glDeleteTextures(1, &textures[2]);
}

void set_up_light() {
  glMatrixMode(GL_MODELVIEW);
  glLoadIdentity();
  glRotatef(40, 1, 0, 0);
  const GLfloat position[] = {1, 2, 3, 0}, ambient[] = {0.1F, 0.1F, 0.15F, 1},
                diffuse[] = {0.8F, 0.5F, 0.4F, 1};
  glLightfv(GL_LIGHT0, GL_POSITION, position);  // seen through this matrix
  glLightfv(GL_LIGHT0, GL_DIFFUSE, diffuse);
  glLightModelfv(GL_LIGHT_MODEL_AMBIENT, ambient);
  glEnable(GL_LIGHT0);
  glMaterialfv(GL_FRONT_AND_BACK, GL_AMBIENT_AND_DIFFUSE, diffuse);
  const GLfloat fog[] = {0.2F, 0.3F, 0.6F, 1};
  glFogfv(GL_FOG_COLOR, fog);
  glFogi(GL_FOG_MODE, GL_LINEAR);
  glFogf(GL_FOG_START, 2);
  glFogf(GL_FOG_END, 9);
  glEnable(GL_FOG);
}

void set_up_list() {
  list = glGenLists(2);
  glNewList(list, GL_COMPILE);
  glShadeModel(GL_FLAT);
  glBegin(GL_TRIANGLES);
  for (int i = 0; i < 30; ++i) {
    glNormal3f(static_cast<float>(i % 3) - 1, static_cast<float>(i % 5) / 5, 1);
    glVertex3f(static_cast<float>(i % 7) / 3 - 1, static_cast<float>(i % 4) / 2 - 1,
               static_cast<float>(i % 5) / 5);
  }
  glEnd();
  glShadeModel(GL_SMOOTH);
  glEndList();
  glNewList(list + 1, GL_COMPILE);
  glTranslatef(0.1F, 0.2F, 0);
  glCallList(list);
  glEndList();
}

}  // namespace

void set_up_fixed() {
  set_up_textures();
  set_up_light();
  set_up_list();
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLBUFFERSUBDATAPROC, glBufferSubData);
  const GLfloat corners[] = {-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0}, moved[] = {0.5F, 0.8F, 0.2F};
  glGenBuffers(1, buffers);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glBufferData(GL_ARRAY_BUFFER, sizeof corners, corners, GL_STATIC_DRAW);
  glBufferSubData(GL_ARRAY_BUFFER, 6 * sizeof(GLfloat), sizeof moved, moved);
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  program = link_program(
      "uniform vec2 shift; varying vec2 at; void main() { gl_Position = gl_Vertex * vec4(0.3,0.3,1,1) + "
      "vec4(shift, 0, 0); at = gl_Vertex.xy; }",
      "uniform vec4 tint[2]; varying vec2 at; void main() { gl_FragColor = tint[0] + tint[1] * "
      "vec4(fract(at * 4.0), 0.2, 1.0); }");
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  LOAD(PFNGLGETUNIFORMLOCATIONPROC, glGetUniformLocation);
  LOAD(PFNGLUNIFORM2FPROC, glUniform2f);
  LOAD(PFNGLUNIFORM4FVPROC, glUniform4fv);
  glUseProgram(program);
  const GLfloat tints[] = {0.1F, 0.2F, 0.1F, 0.5F, 0.4F, 0.6F, 0.5F, 0.5F};
  glUniform2f(glGetUniformLocation(program, "shift"), 0.6F, 0.55F);
  glUniform4fv(glGetUniformLocation(program, "tint"), 2, tints);
  glUseProgram(0);
  glMatrixMode(GL_PROJECTION);
  glLoadIdentity();
  glFrustum(-1, 1, -1, 1, 1.5, 20);
  glMatrixMode(GL_MODELVIEW);
  glLoadIdentity();
  glTranslatef(0, 0, -4);
  glClearColor(0.05F, 0.1F, 0.15F, 1);
  glEnable(GL_DEPTH_TEST);
  glDepthFunc(GL_LEQUAL);
  glLineStipple(2, 0x3333);
  glLineWidth(2);
  glEnable(GL_SCISSOR_TEST);
  glScissor(3, 5, kSize - 9, kSize - 11);
  // Two levels of attributes, one of which is still open.
  glColor4f(0.9F, 0.8F, 0.3F, 1);
  glPushAttrib(GL_CURRENT_BIT | GL_LINE_BIT);
  glColor4f(0.2F, 0.9F, 0.9F, 1);
  glPushAttrib(GL_ALL_ATTRIB_BITS);
  glColor4f(1, 0, 0, 1);
  glDisable(GL_FOG);
  glBindTexture(GL_TEXTURE_2D, 0);
  glPopAttrib();
  glPushMatrix();
  glRotatef(20, 0, 1, 0);
}

void draw_fixed() {
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glEnable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE1);
  glEnable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE0);
  glBegin(GL_QUADS);
  for (int i = 0; i < 4; ++i) {
    float x = i == 1 || i == 2 ? 1 : -1, y = i > 1 ? 1 : -1;
    glMultiTexCoord2f(GL_TEXTURE0, x, y);
    glMultiTexCoord2f(GL_TEXTURE1, y, x);
    glVertex3f(x, y, -0.5F);
  }
  glEnd();
  glActiveTexture(GL_TEXTURE1);
  glDisable(GL_TEXTURE_2D);
  glActiveTexture(GL_TEXTURE0);
  glDisable(GL_TEXTURE_2D);
  glEnable(GL_LIGHTING);
  glPushMatrix();
  glCallList(list + 1);
  glPopMatrix();
  glDisable(GL_LIGHTING);
  // From the program's own memory, interleaved, with indices.
  struct Vertex {
    GLubyte color[4];
    GLfloat at[3];
  };
  static const Vertex kVertices[] = {{{255, 40, 40, 255}, {-1.2F, -1.2F, 0.3F}},
                                     {{40, 255, 40, 255}, {0, -1.2F, 0.2F}},
                                     {{40, 40, 255, 255}, {-0.6F, -0.4F, 0.1F}},
                                     {{9, 9, 9, 9}, {5, 5, 5}}};
  static const GLushort kIndices[] = {2, 0, 1};
  glEnableClientState(GL_VERTEX_ARRAY);
  glEnableClientState(GL_COLOR_ARRAY);
  glColorPointer(4, GL_UNSIGNED_BYTE, sizeof(Vertex), kVertices[0].color);
  glVertexPointer(3, GL_FLOAT, sizeof(Vertex), kVertices[0].at);
  glDrawElements(GL_TRIANGLES, 3, GL_UNSIGNED_SHORT, kIndices);
  glDisableClientState(GL_COLOR_ARRAY);
  glColor4f(0.3F, 0.4F, 0.9F, 1);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  glVertexPointer(3, GL_FLOAT, 0, nullptr);
  glBindBuffer(GL_ARRAY_BUFFER, 0);
  glUseProgram(program);
  glDrawArrays(GL_QUADS, 0, 4);
  glUseProgram(0);
  glDisableClientState(GL_VERTEX_ARRAY);
  // In the colour of the attributes that are still to be popped.
  glPushAttrib(GL_ENABLE_BIT);
  glEnable(GL_LINE_STIPPLE);
  glBegin(GL_LINES);
  glVertex3f(-1, 0.9F, 0.5F);
  glVertex3f(1, 0.7F, 0.5F);
  glEnd();
  glPopAttrib();
}

void extra_fixed() {
  glPopMatrix();  // what was pushed before must be there
  glPopAttrib();
}
