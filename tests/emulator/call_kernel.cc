/*!
 * \file call_kernel.cc
 * \brief Calls the function "main" of a compiled kernel: call_kernel LIBRARY DTYPE:SIZE,SIZE,...:FILE ... [-- ...]
 *
 * Every file holds a tensor's raw values; the last of a call is written afterwards. "--" parts the calls.
 */
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>

#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

#include "aligned_alloc.h"

namespace ffi = tvm::ffi;

namespace {

struct Argument {
  ffi::Tensor tensor;
  std::string path;

  explicit Argument(const std::string& word) {
    size_t shape_at = word.find(':') + 1, path_at = word.find(':', shape_at) + 1;
    std::istringstream sizes(word.substr(shape_at, path_at - 1 - shape_at));
    std::vector<int64_t> shape;
    for (std::string size; std::getline(sizes, size, ',');) shape.push_back(std::stoll(size));
    path = word.substr(path_at);
    tensor = ffi::Tensor::FromNDAlloc(AlignedAlloc(), ffi::ShapeView(shape.data(), shape.size()),
                                      ffi::StringToDLDataType(word.substr(0, shape_at - 1)), DLDevice{kDLCPU, 0});
    std::ifstream file(path, std::ios::binary);
    if (!file.read(Data(), Bytes())) throw std::runtime_error(path + " is shorter than its tensor");
  }
  char* Data() { return static_cast<char*>(tensor.data_ptr()); }
  std::streamsize Bytes() const { return static_cast<std::streamsize>(ffi::GetDataSize(tensor)); }
};

void Call(const ffi::Function& kernel, std::vector<Argument> arguments) {
  std::vector<ffi::AnyView> views;
  for (const Argument& argument : arguments) views.emplace_back(argument.tensor);
  ffi::Any result;
  kernel.CallPacked(ffi::PackedArgs(views.data(), static_cast<int32_t>(views.size())), &result);
  Argument& out = arguments.back();
  if (!std::ofstream(out.path, std::ios::binary).write(out.Data(), out.Bytes())) {
    throw std::runtime_error(out.path + " cannot be written");
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    ffi::Function kernel = ffi::Module::LoadFromFile(argv[1])->GetFunction("main").value();
    std::vector<Argument> arguments;
    for (int i = 2; i < argc; ++i) {
      if (std::string(argv[i]) != "--") {
        arguments.emplace_back(argv[i]);
      } else {
        Call(kernel, std::move(arguments));
        arguments.clear();
      }
    }
    Call(kernel, std::move(arguments));
    return 0;
  } catch (const std::exception& e) {
    std::cerr << "call_kernel: " << e.what() << "\n";
    return 1;
  }
}
