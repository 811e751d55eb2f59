// What EGL says in a ring. Contexts and surfaces have the packets of packet.h, so that the keeper keeps them
// as it keeps those of GLX. What is particular:
//
//   CreateContext   `screen` is the platform, `config` is 0 or 1: a Config follows the attributes. These have
//                   the names of GLX.
//   CreateSurface   `screen` is the platform; a Config follows the attributes.
//   ChooseConfigs   of kOpGetConfigs: `screen` is the platform. No configuration: it cannot be used.
//
// A configuration is told by all its attributes: its number may mean another one to another driver.
#pragma once

#include "wire/packet.h"

namespace stasis::gl {

// Flag of the packets above, beside PacketFlags.
constexpr uint16_t kOfEgl = 0x100;

enum EglPlatform : int32_t { kX11Platform, kSurfacelessPlatform };

// Numbers of surfaces, beyond the X identifiers that GLX has.
constexpr uint64_t kFirstEglSurface = uint64_t{1} << 32;
// A context that is current without a surface. Not 0: that is one that was never current.
constexpr uint64_t kNoSurface = ~uint64_t{0};

enum EglOp : uint16_t { kOpEglCreateSync = 48, kOpEglDestroySync, kOpEglWaitSync };

struct SyncCall {
  Packet header;
  uint64_t sync;  // number chosen by the program's side
  uint64_t timeout;
  int32_t flags;
  int32_t pad;
};

// The answer to what makes something or makes it current.
struct EglAnswer {
  uint32_t done;
  int32_t error;  // of EGL
};
static_assert(sizeof(EglAnswer) == 8);

}  // namespace stasis::gl
