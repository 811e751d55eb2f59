// Locks on files: flock(), F_OFD_SETLK and F_SETLK.
#pragma once

#include <fcntl.h>

#include <vector>

#include "schema/manifest.pb.h"
#include "stasis/descriptor.h"

namespace stasis::resource {

// The locks that belong to the description, whoever shares it.
Result<void> observe_locks(const OpenFile& file, const Observation& tree, schema::Description& out);

// The locks of the process whose fdinfo the file has: those that it took by this description.
std::vector<schema::RecordLock> record_locks(const OpenFile& file);

// Whether fcntl(F_GETLK) and /proc/locks name a process as the one who took it, which has to take it again.
bool shows_holder(const schema::FileLock& lock);

// Taken by the builder, they stay with the description wherever it is passed. Not what shows its holder, and
// not leases: the kernel notes who takes one and by which number.
Result<void> lock_description(const schema::Description& description, int fd);
// flock() as its holder has to call it.
int flock_operation(const schema::FileLock& lock);

// Whether opening the file would disturb the program.
bool has_write_lease(const OpenFile& file);

// What fcntl(F_SETLEASE) is to be asked for.
int lease_type(const schema::FileLock& lock, uint32_t flags);

// What fcntl(F_SETLK) wants of the process itself.
struct flock as_flock(const schema::RecordLock& lock);
struct flock as_flock(const schema::FileLock& lock);
// A lock could not be had: names file, range and, if it can be found, who has it. `fd` is our own descriptor
// of the file.
Error lock_refused(const std::string& shown, int fd, const struct flock& wanted, int error);

}  // namespace stasis::resource
