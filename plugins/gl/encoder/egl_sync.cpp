// Fences (EGL_KHR_fence_sync). The program's handles are numbers that we choose.
#include "encoder/connection.h"
#include "encoder/egl.h"

namespace stasis::gl::egl {

namespace {

// A record is kept for each, since handles are checked.
struct Sync {
  uint32_t number;
  Sync* next;
};
Sync* syncs = nullptr;

SyncCall* begin(Stream& s, uint16_t op, const Sync& sync) {
  auto* packet = static_cast<SyncCall*>(s.begin(op, sizeof(SyncCall)));
  *packet = {packet->header, sync.number, 0, 0, 0};
  return packet;
}

Sync* sync_of(EGLDisplay handle, EGLSync sync_handle) {
  called_directly();
  if (usable(handle) == nullptr) return nullptr;
  Sync* sync = find(syncs, sync_handle);
  if (sync == nullptr) fail(EGL_BAD_PARAMETER);
  return sync;
}

// The answer of the renderer, which waits in this thread's place.
EGLint wait(const Sync& sync, EGLint flags, EGLTime timeout) {
  Stream* s = Connection::thread_stream();
  if (s == nullptr) return EGL_FALSE;
  SyncCall* packet = begin(*s, kOpEglWaitSync, sync);
  packet->flags = flags;
  packet->timeout = timeout;
  return s->ask().result<EGLint>();
}

}  // namespace

EGLSync CreateSyncKHR(EGLDisplay handle, EGLenum type, const EGLint* attributes) {
  const Lock lock;
  auto refuse = [](EGLint error) {
    fail(error);
    return EGL_NO_SYNC;
  };
  called_directly();
  if (usable(handle) == nullptr) return EGL_NO_SYNC;
  if (type != EGL_SYNC_FENCE || (attributes != nullptr && *attributes != EGL_NONE))
    return refuse(type != EGL_SYNC_FENCE ? EGL_BAD_PARAMETER : EGL_BAD_ATTRIBUTE);
  Stream* s = stream();
  if (s == nullptr || current == nullptr) return refuse(EGL_BAD_MATCH);
  Sync* made = add(syncs);
  made->number = Connection::next_number();
  begin(*s, kOpEglCreateSync, *made);
  // Another thread's ring may ask for it at once.
  if (const auto answer = s->ask().result<EglAnswer>(); answer.done == 0) {
    remove(syncs, made);
    return refuse(answer.error);
  }
  done();
  return made;
}

EGLBoolean DestroySyncKHR(EGLDisplay handle, EGLSync sync_handle) {
  const Lock lock;
  Sync* sync = sync_of(handle, sync_handle);
  if (sync == nullptr) return EGL_FALSE;
  if (Stream* s = Connection::thread_stream()) {
    begin(*s, kOpEglDestroySync, *sync);
    s->commit_small();
  }
  remove(syncs, sync);
  return done();
}

EGLint ClientWaitSyncKHR(EGLDisplay handle, EGLSync sync_handle, EGLint flags, EGLTime timeout) {
  Sync sync = {};
  {
    const Lock lock;
    Sync* found = sync_of(handle, sync_handle);
    if (found == nullptr) return EGL_FALSE;
    sync = *found;
  }
  const EGLint said = wait(sync, flags, timeout);
  if (said == EGL_FALSE) return fail(EGL_BAD_PARAMETER);
  done();
  return said;
}

EGLBoolean GetSyncAttribKHR(EGLDisplay handle, EGLSync sync_handle, EGLint name, EGLint* value) {
  Sync sync = {};
  {
    const Lock lock;
    Sync* found = sync_of(handle, sync_handle);
    if (found == nullptr) return EGL_FALSE;
    sync = *found;
  }
  switch (name) {
    case EGL_SYNC_TYPE:
      *value = EGL_SYNC_FENCE;
      return done();
    case EGL_SYNC_CONDITION:
      *value = EGL_SYNC_PRIOR_COMMANDS_COMPLETE;
      return done();
    case EGL_SYNC_STATUS:
      *value = wait(sync, 0, 0) == EGL_CONDITION_SATISFIED ? EGL_SIGNALED : EGL_UNSIGNALED;
      return done();
  }
  return fail(EGL_BAD_ATTRIBUTE);
}

}  // namespace stasis::gl::egl
