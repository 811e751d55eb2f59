// A matrix that is multiplied for ever, and never loaded.
#include "scene.h"

namespace {

GLuint list, textures[1];

}  // namespace

void set_up_turning() {
  glMatrixMode(GL_PROJECTION);
  glFrustum(-1, 1, -1, 1, 1.5, 20);
  glMatrixMode(GL_MODELVIEW);
  glTranslatef(0, 0, -4);
  glMatrixMode(GL_TEXTURE);
  glTranslatef(0.1F, 0.2F, 0);
  glMatrixMode(GL_MODELVIEW);
  glGenTextures(1, textures);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  filter(GL_NEAREST);
  glPixelStorei(GL_UNPACK_ALIGNMENT, 1);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 16, 16, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(16, 16, 3).data());
  glEnable(GL_TEXTURE_2D);
  glEnable(GL_DEPTH_TEST);
  glClearColor(0.2F, 0.1F, 0.3F, 1);
  list = glGenLists(1);
  glNewList(list, GL_COMPILE);
  glRotatef(0.13F, -2, 1, 0.5F);
  glEndList();
}

void draw_turning() {
  constexpr int kTurns = 1000;
  end_frame();  // all before is in the log
  for (int i = 0; i < kTurns; ++i) {
    glRotatef(0.37F, 1, 2, 3);
    glPushMatrix();
    glScalef(1.01F, 0.99F, 1);
    glPopMatrix();
    glCallList(list);
  }
  glPushAttrib(GL_TRANSFORM_BIT | GL_TEXTURE_BIT);
  glMatrixMode(GL_TEXTURE);
  for (int i = 0; i < kTurns; ++i) glRotatef(0.1F, 0, 0, 1);
  glPopAttrib();
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  fullscreen(-1, -1, 1, 1, 0.5F);
  fullscreen(-0.5F, -1, 1.2F, 0.7F, -0.5F);
  triangle(0.2F, 0.3F);
  glPushMatrix();
  glRotatef(90, 1, 0, 0);
  fullscreen(-1, -1, 1, 1, 0.2F);
  glPopMatrix();
}
