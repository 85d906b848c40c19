// The program that XLA would run on a GPU, made where there is none by the compiler that
// TensorFlow's own library holds. See measure_gpu_program.py, which builds and runs it:
//
//   gpu_program MODULE TARGET OPTIMIZED
//
// MODULE is an encoded HloModuleProto, TARGET a GpuTargetConfigProto as text; OPTIMIZED
// is written. What else is wanted, XLA_FLAGS=--xla_dump_to=FOLDER has.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>

#include "google/protobuf/text_format.h"
#include "xla/debug_options_flags.h"
#include "xla/hlo/ir/hlo_module.h"
#include "xla/service/compiler.h"
#include "xla/service/gpu_topology.h"
#include "xla/service/hlo.pb.h"
#include "xla/stream_executor/cuda/cuda_platform_id.h"
#include "xla/stream_executor/device_description.pb.h"

std::string Read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

template <class T>
T Get(absl::StatusOr<T> found, const char* what) {
  if (!found.ok()) {
    std::cerr << what << ": " << found.status().ToString() << "\n";
    std::exit(1);
  }
  return std::move(found).value();
}

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  xla::HloModuleProto content;
  stream_executor::GpuTargetConfigProto target;
  if (!content.ParseFromString(Read(argv[1])) ||
      !google::protobuf::TextFormat::ParseFromString(Read(argv[2]), &target)) {
    std::cerr << "no module, or no target\n";
    return 1;
  }
  auto config = Get(xla::HloModule::CreateModuleConfigFromProto(
                        content, xla::GetDebugOptionsFromFlags()),
                    "configuration");
  auto module = Get(xla::HloModule::CreateFromProto(content, config), "module");
  auto device = Get(xla::gpu::GpuTargetConfig::FromProto(target), "target");
  auto compiler = Get(xla::Compiler::GetForPlatform(
                          stream_executor::cuda::kCudaPlatformId),
                      "compiler");
  xla::Compiler::CompileOptions options;
  options.gpu_topology = xla::GpuTopology("", 1, 1, 1, device);
  module = Get(compiler->RunHloPasses(std::move(module), nullptr, options), "passes");
  std::ofstream(argv[3]) << module->ToString();
  Get(compiler->RunBackend(std::move(module), nullptr, options), "kernels");
  std::_Exit(0);  // What is torn down at exit looks for a device.
}
