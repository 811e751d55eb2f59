// A program that sets up a lot of OpenGL state once, and then draws with it whenever it is told: a line
// "draw" on standard input is answered with a hash of the picture. What it needs for a frame was said long
// ago, so a driver that got it from a log must have all of it. "extra" changes some of it.
#include <GL/gl.h>
#include <GL/glext.h>
#include <GL/glx.h>
#include <X11/Xlib.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

constexpr int kSize = 256;

template <typename F>
F load(const char* name) {
  return reinterpret_cast<F>(glXGetProcAddressARB(reinterpret_cast<const GLubyte*>(name)));
}
#define LOAD(type, name) auto* name = load<type>(#name)

[[noreturn]] void die(const char* what) {
  fprintf(stderr, "scene: %s\n", what);
  exit(1);
}

void open_window(bool core) {
  Display* display = XOpenDisplay(nullptr);
  if (display == nullptr) die("no display");
  const int attributes[] = {GLX_RED_SIZE,
                            8,
                            GLX_GREEN_SIZE,
                            8,
                            GLX_BLUE_SIZE,
                            8,
                            GLX_DEPTH_SIZE,
                            1,
                            GLX_STENCIL_SIZE,
                            1,
                            GLX_DOUBLEBUFFER,
                            True,
                            GLX_DRAWABLE_TYPE,
                            GLX_WINDOW_BIT,
                            None};
  int count = 0;
  GLXFBConfig* configs = glXChooseFBConfig(display, DefaultScreen(display), attributes, &count);
  if (configs == nullptr) die("no configuration");
  XVisualInfo* visual = glXGetVisualFromFBConfig(display, configs[0]);
  XSetWindowAttributes set = {};
  set.colormap = XCreateColormap(display, DefaultRootWindow(display), visual->visual, AllocNone);
  Window window = XCreateWindow(display, DefaultRootWindow(display), 0, 0, kSize, kSize, 0, visual->depth,
                                InputOutput, visual->visual, CWColormap, &set);
  XMapWindow(display, window);
  GLXContext context = nullptr;
  if (core) {
    LOAD(PFNGLXCREATECONTEXTATTRIBSARBPROC, glXCreateContextAttribsARB);
    const int wanted[] = {
        GLX_CONTEXT_MAJOR_VERSION_ARB,    3,   GLX_CONTEXT_MINOR_VERSION_ARB, 3, GLX_CONTEXT_PROFILE_MASK_ARB,
        GLX_CONTEXT_CORE_PROFILE_BIT_ARB, None};
    context = glXCreateContextAttribsARB(display, configs[0], nullptr, True, wanted);
  } else {
    context = glXCreateNewContext(display, configs[0], GLX_RGBA_TYPE, nullptr, True);
  }
  if (context == nullptr || !glXMakeCurrent(display, window, context)) die("no context");
}

uint64_t hash_of_picture() {
  std::vector<unsigned char> pixels(kSize * kSize * 4);
  glReadPixels(0, 0, kSize, kSize, GL_RGBA, GL_UNSIGNED_BYTE, pixels.data());
  uint64_t hash = 14695981039346656037U;
  size_t lit = 0;
  for (unsigned char byte : pixels) {
    hash = (hash ^ byte) * 1099511628211U;
    lit += byte != 0 && byte != 255;
  }
  if (lit < 1000) die("the picture is empty");
  if (GLenum error = glGetError(); error != GL_NO_ERROR) {
    fprintf(stderr, "scene: error 0x%x\n", error);
    exit(1);
  }
  return hash;
}

std::vector<unsigned char> pattern(int width, int height, int seed) {
  std::vector<unsigned char> bytes(static_cast<size_t>(width * height * 3));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<unsigned char>((i * 7 + i / 16 * 31) ^ seed);
  return bytes;
}

// --- Fixed function

GLuint textures[3], list, program, buffers[2];

GLuint compile(GLenum type, const char* source) {
  LOAD(PFNGLCREATESHADERPROC, glCreateShader);
  LOAD(PFNGLSHADERSOURCEPROC, glShaderSource);
  LOAD(PFNGLCOMPILESHADERPROC, glCompileShader);
  LOAD(PFNGLGETSHADERIVPROC, glGetShaderiv);
  GLuint shader = glCreateShader(type);
  glShaderSource(shader, 1, &source, nullptr);
  glCompileShader(shader);
  GLint done = 0;
  glGetShaderiv(shader, GL_COMPILE_STATUS, &done);
  if (!done) die("a shader does not compile");
  return shader;
}

GLuint link(const char* vertex, const char* fragment) {
  LOAD(PFNGLCREATEPROGRAMPROC, glCreateProgram);
  LOAD(PFNGLATTACHSHADERPROC, glAttachShader);
  LOAD(PFNGLLINKPROGRAMPROC, glLinkProgram);
  LOAD(PFNGLDELETESHADERPROC, glDeleteShader);
  LOAD(PFNGLGETPROGRAMIVPROC, glGetProgramiv);
  GLuint linked = glCreateProgram();
  for (GLuint shader : {compile(GL_VERTEX_SHADER, vertex), compile(GL_FRAGMENT_SHADER, fragment)}) {
    glAttachShader(linked, shader);
    glDeleteShader(shader);  // lives as long as it is attached
  }
  glLinkProgram(linked);
  GLint done = 0;
  glGetProgramiv(linked, GL_LINK_STATUS, &done);
  if (!done) die("a program does not link");
  return linked;
}

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
  program = link(
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

// --- Core profile

GLuint array;

void set_up_core() {
  LOAD(PFNGLGENVERTEXARRAYSPROC, glGenVertexArrays);
  LOAD(PFNGLBINDVERTEXARRAYPROC, glBindVertexArray);
  LOAD(PFNGLGENBUFFERSPROC, glGenBuffers);
  LOAD(PFNGLBINDBUFFERPROC, glBindBuffer);
  LOAD(PFNGLBUFFERDATAPROC, glBufferData);
  LOAD(PFNGLMAPBUFFERRANGEPROC, glMapBufferRange);
  LOAD(PFNGLUNMAPBUFFERPROC, glUnmapBuffer);
  LOAD(PFNGLVERTEXATTRIBPOINTERPROC, glVertexAttribPointer);
  LOAD(PFNGLENABLEVERTEXATTRIBARRAYPROC, glEnableVertexAttribArray);
  LOAD(PFNGLVERTEXATTRIB4FPROC, glVertexAttrib4f);
  LOAD(PFNGLGETATTRIBLOCATIONPROC, glGetAttribLocation);
  LOAD(PFNGLGETUNIFORMBLOCKINDEXPROC, glGetUniformBlockIndex);
  LOAD(PFNGLUNIFORMBLOCKBINDINGPROC, glUniformBlockBinding);
  LOAD(PFNGLBINDBUFFERBASEPROC, glBindBufferBase);
  LOAD(PFNGLUSEPROGRAMPROC, glUseProgram);
  program = link(
      "#version 330\nin vec2 at; in vec4 color; out vec4 shade; layout(std140) uniform Move { vec4 move; };"
      "void main() { gl_Position = vec4(at + move.xy, 0, 1); shade = color + vec4(at, 0, 0); }",
      "#version 330\nin vec4 shade; out vec4 pixel; uniform sampler2D image; void main() { pixel = shade * "
      "0.5"
      " + texture(image, shade.xy) * 0.5; }");
  glGenVertexArrays(1, &array);
  glBindVertexArray(array);
  glGenBuffers(2, buffers);
  glBindBuffer(GL_ARRAY_BUFFER, buffers[0]);
  const GLfloat corners[] = {-0.8F, -0.7F, 0.9F, -0.8F, 0.7F, 0.8F, -0.6F, 0.9F};
  glBufferData(GL_ARRAY_BUFFER, sizeof corners, nullptr, GL_STATIC_DRAW);
  memcpy(glMapBufferRange(GL_ARRAY_BUFFER, 0, sizeof corners, GL_MAP_WRITE_BIT), corners, sizeof corners);
  glUnmapBuffer(GL_ARRAY_BUFFER);
  const auto at = static_cast<GLuint>(glGetAttribLocation(program, "at"));
  glVertexAttribPointer(at, 2, GL_FLOAT, GL_FALSE, 0, nullptr);
  glEnableVertexAttribArray(at);
  glVertexAttrib4f(static_cast<GLuint>(glGetAttribLocation(program, "color")), 0.3F, 0.5F, 0.2F, 1);
  const GLushort indices[] = {0, 1, 2, 0, 2, 3};
  glBindBuffer(GL_ELEMENT_ARRAY_BUFFER, buffers[1]);
  glBufferData(GL_ELEMENT_ARRAY_BUFFER, sizeof indices, indices, GL_STATIC_DRAW);
  glBindVertexArray(0);
  GLuint block = 0;
  glGenBuffers(1, &block);
  const GLfloat move[] = {0.05F, -0.1F, 0, 0};
  glBindBuffer(GL_UNIFORM_BUFFER, block);
  glBufferData(GL_UNIFORM_BUFFER, sizeof move, move, GL_STATIC_DRAW);
  glBindBufferBase(GL_UNIFORM_BUFFER, 2, block);
  glUniformBlockBinding(program, glGetUniformBlockIndex(program, "Move"), 2);
  glGenTextures(1, textures);
  glBindTexture(GL_TEXTURE_2D, textures[0]);
  glTexParameteri(GL_TEXTURE_2D, GL_TEXTURE_MIN_FILTER, GL_NEAREST);
  glTexImage2D(GL_TEXTURE_2D, 0, GL_RGB8, 16, 16, 0, GL_RGB, GL_UNSIGNED_BYTE, pattern(16, 16, 3).data());
  glUseProgram(program);
  glClearColor(0.2F, 0.1F, 0.3F, 1);
}

void draw_core() {
  LOAD(PFNGLBINDVERTEXARRAYPROC, glBindVertexArray);
  glClear(GL_COLOR_BUFFER_BIT | GL_DEPTH_BUFFER_BIT);
  glBindVertexArray(array);
  glDrawElements(GL_TRIANGLES, 6, GL_UNSIGNED_SHORT, nullptr);
  glBindVertexArray(0);
}

}  // namespace

namespace {

std::string run_command(const std::string& command, bool core) {
  if (command == "extra" && !core) extra_fixed();
  core ? draw_core() : draw_fixed();
  char text[32];
  snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash_of_picture()));
  return text;
}

// No descriptor stays open in between, so that a test can go on with it after a restart.
[[noreturn]] void serve_directory(const std::string& directory, bool core) {
  for (int number = 1;;) {
    const std::string name = directory + "/" + std::to_string(number);
    char command[64] = {};
    FILE* file = fopen((name + ".command").c_str(), "r");
    if (file == nullptr) {
      usleep(10'000);
      continue;
    }
    if (fscanf(file, "%63s", command) != 1) die("no command");
    fclose(file);
    file = fopen((name + ".part").c_str(), "w");
    fprintf(file, "%s %s\n", run_command(command, core).c_str(),
            reinterpret_cast<const char*>(glGetString(GL_RENDERER)));
    fclose(file);
    rename((name + ".part").c_str(), (name + ".answer").c_str());
    ++number;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const bool core = argc > 1 && strcmp(argv[1], "core") == 0;
  open_window(core);
  core ? set_up_core() : set_up_fixed();
  if (argc > 2) serve_directory(argv[2], core);
  printf("ready %s\n", reinterpret_cast<const char*>(glGetString(GL_RENDERER)));
  fflush(stdout);
  char line[64];
  while (fscanf(stdin, "%63s", line) == 1) {
    printf("%s\n", run_command(line, core).c_str());
    fflush(stdout);
  }
  return 0;
}
