// The one place that includes libfuse, at the version of its interface that we use.
#pragma once

#define FUSE_USE_VERSION 312
#include <fuse_lowlevel.h>
