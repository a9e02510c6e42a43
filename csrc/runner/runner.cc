/*!
 * \file runner.cc
 * \brief Runs a compiled artefact on a device without Python: libtvm_ffi.so, libtvm_runtime.so and this program.
 *
 *   tvm-ffn-runner ARTEFACT OUTPUT_FOLDER NAME=FILE.bin ... [--repeat N]
 *
 * Each input file holds the raw values (little endian, C order) of one input; a model with a symbolic batch takes any
 * whole number of samples, the same for every input, and runs them one by one. Output i goes to OUTPUT_FOLDER/i.bin and
 * is listed on standard output. With --repeat the last sample runs N more times and the median time is printed.
 * Exit codes: 0 ok, 1 failure while running, 2 usage or input data, 4 not an artefact this program reads.
 */
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iostream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "aligned_alloc.h"

namespace ffi = tvm::ffi;

namespace {

constexpr int64_t kFormatVersion = 2;
constexpr int kPooledAllocator = 2;  // the Relax VM's memory manager that reuses freed tensors

/*! \brief An error that ends the program with a message and an exit code. */
struct Failure {
  int code;
  std::string message;
};

/*! \brief A model's input or output as the manifest states it. */
struct TensorInfo {
  std::string name;
  std::vector<int64_t> shape;  // of one sample: a symbolic batch has become 1
  DLDataType dtype;
  bool batched;
};

struct Manifest {
  std::vector<TensorInfo> inputs, outputs;
};

std::string ReadFile(const std::string& path, int code) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) throw Failure{code, path + " cannot be read or is empty"};
  return text.str();
}

std::vector<TensorInfo> ReadInfos(const ffi::Any& list) {
  std::vector<TensorInfo> infos;
  for (const ffi::Any& item : list.cast<ffi::json::Array>()) {
    auto fields = item.cast<ffi::json::Object>();
    TensorInfo info{fields[ffi::String("name")].cast<ffi::String>(), {}, {}, false};
    for (const ffi::Any& dim : fields[ffi::String("shape")].cast<ffi::json::Array>()) {
      auto size = dim.try_cast<int64_t>();
      info.batched = info.batched || !size;
      info.shape.push_back(size.value_or(1));
    }
    info.dtype = ffi::StringToDLDataType(fields[ffi::String("dtype")].cast<ffi::String>());
    infos.push_back(info);
  }
  return infos;
}

Manifest ReadManifest(const std::string& path) {
  ffi::String error;
  ffi::Any parsed = ffi::json::Parse(ReadFile(path, 4), &error);
  if (!error.empty()) throw Failure{4, path + " is no JSON: " + std::string(error)};
  try {
    auto fields = parsed.cast<ffi::json::Object>();
    int64_t version = fields[ffi::String("format_version")].cast<int64_t>();
    if (fields[ffi::String("format")].cast<ffi::String>() != "tvm_ffn" || version > kFormatVersion) {
      throw Failure{4, path + " has format version " + std::to_string(version) + ", this program reads up to " +
                           std::to_string(kFormatVersion)};
    }
    return {ReadInfos(fields[ffi::String("inputs")]), ReadInfos(fields[ffi::String("outputs")])};
  } catch (const ffi::Error& e) {
    throw Failure{4, path + " is not an artefact's manifest: " + std::string(e.message())};
  }
}

ffi::Tensor NewTensor(const TensorInfo& info) {
  ffi::ShapeView shape(info.shape.data(), info.shape.size());
  return ffi::Tensor::FromNDAlloc(AlignedAlloc(), shape, info.dtype, DLDevice{kDLCPU, 0});
}

/*! \brief The executable's main function inside an initialised Relax virtual machine. */
struct Model {
  ffi::Module executable, machine;
  ffi::Function main;

  explicit Model(const std::string& library)
      : executable(ffi::Module::LoadFromFile(library)),
        machine(executable->GetFunction("vm_load_executable").value()().cast<ffi::Module>()),
        main(nullptr) {
    machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
    main = machine->GetFunction("main").value();
  }

  std::vector<ffi::Tensor> Run(const std::vector<ffi::AnyView>& arguments) const {
    ffi::Any result;
    main.CallPacked(ffi::PackedArgs(arguments.data(), static_cast<int32_t>(arguments.size())), &result);
    if (auto tensor = result.as<ffi::Tensor>()) return {*tensor};
    auto tuple = result.cast<ffi::Array<ffi::Tensor>>();
    return {tuple.begin(), tuple.end()};
  }
};

struct Options {
  std::string artefact, output_folder;
  std::map<std::string, std::string> files;
  int repeat = 0;
};

Options ParseOptions(int argc, char** argv) {
  const char* usage = "usage: tvm-ffn-runner ARTEFACT OUTPUT_FOLDER NAME=FILE.bin ... [--repeat N]";
  std::vector<std::string> words(argv + 1, argv + argc);
  Options options;
  if (words.size() < 3) throw Failure{2, usage};
  options.artefact = words[0];
  options.output_folder = words[1];
  for (size_t i = 2; i < words.size(); ++i) {
    size_t equals = words[i].find('=');
    if (words[i] == "--repeat" && i + 1 < words.size()) {
      options.repeat = std::atoi(words[++i].c_str());
    } else if (equals != std::string::npos) {
      options.files[words[i].substr(0, equals)] = words[i].substr(equals + 1);
    } else {
      throw Failure{2, "unexpected \"" + words[i] + "\"\n" + usage};
    }
  }
  return options;
}

/*! \brief Median of `repeat` timed runs, in milliseconds. */
double MedianMilliseconds(const Model& model, const std::vector<ffi::AnyView>& arguments, int repeat) {
  std::vector<double> times;
  for (int i = 0; i < repeat; ++i) {
    auto start = std::chrono::steady_clock::now();
    model.Run(arguments);
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count());
  }
  std::nth_element(times.begin(), times.begin() + repeat / 2, times.end());
  return times[repeat / 2];
}

/*! \brief One input: memory for a sample, and its file's content, all samples or the only one. */
struct Input {
  ffi::Tensor tensor;
  std::string data;

  void Load(size_t sample) {
    size_t bytes = ffi::GetDataSize(tensor);
    std::memcpy(tensor.data_ptr(), data.data() + sample * bytes % data.size(), bytes);
  }
};

/*! \brief Reads the inputs in the manifest's order; returns the number of samples. */
size_t ReadInputs(const Manifest& manifest, const std::map<std::string, std::string>& files,
                  std::vector<Input>* inputs) {
  size_t samples = 0;
  for (const TensorInfo& info : manifest.inputs) {
    auto file = files.find(info.name);
    if (file == files.end()) throw Failure{2, "no file is given for input \"" + info.name + "\""};
    inputs->push_back({NewTensor(info), ReadFile(file->second, 2)});
    size_t size = inputs->back().data.size(), bytes = ffi::GetDataSize(inputs->back().tensor);
    if (info.batched && samples == 0) samples = size / bytes;
    if (size == 0 || size != (info.batched ? samples : 1) * bytes) {
      throw Failure{2, file->second + " holds " + std::to_string(size) + " bytes, one sample of \"" + info.name +
                           "\" is " + std::to_string(bytes)};
    }
  }
  if (files.size() != inputs->size()) throw Failure{2, "a file is given for an input the model does not have"};
  return std::max(samples, size_t{1});
}

std::vector<std::ofstream> OpenOutputs(const Manifest& manifest, const std::string& folder) {
  std::vector<std::ofstream> outputs;
  for (const TensorInfo& info : manifest.outputs) {
    std::string path = folder + "/" + std::to_string(outputs.size()) + ".bin";
    outputs.emplace_back(path, std::ios::binary);
    if (!outputs.back()) throw Failure{2, path + " cannot be written"};
    std::cout << info.name << " " << ffi::DLDataTypeToString(info.dtype) << " " << path << "\n";
  }
  return outputs;
}

void RunAll(const Options& options) {
  Manifest manifest = ReadManifest(options.artefact + "/manifest.json");
  std::vector<Input> inputs;
  size_t samples = ReadInputs(manifest, options.files, &inputs);
  std::vector<ffi::AnyView> arguments;
  for (const Input& input : inputs) arguments.emplace_back(input.tensor);
  std::string library = options.artefact + "/model.so";
  if (!std::ifstream(library) && std::ifstream(library + ".bz2")) {
    throw Failure{4, library + ".bz2 is compressed: bunzip2 it first, or compile with --no-compress"};
  }
  Model model(library);
  std::vector<std::ofstream> outputs = OpenOutputs(manifest, options.output_folder);
  for (size_t s = 0; s < samples; ++s) {
    for (Input& input : inputs) input.Load(s);
    std::vector<ffi::Tensor> results = model.Run(arguments);
    for (size_t o = 0; o < results.size(); ++o) {
      auto bytes = static_cast<std::streamsize>(ffi::GetDataSize(results[o]));
      outputs.at(o).write(static_cast<const char*>(results[o].data_ptr()), bytes);
    }
  }
  for (std::ofstream& output : outputs) {
    if (!output.flush()) throw Failure{2, options.output_folder + ": an output cannot be written"};
  }
  if (options.repeat > 0) {
    std::cout << "median " << MedianMilliseconds(model, arguments, options.repeat) << " ms\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  try {
    RunAll(ParseOptions(argc, argv));
    return 0;
  } catch (const Failure& failure) {
    std::cerr << "tvm-ffn-runner: " << failure.message << "\n";
    return failure.code;
  } catch (const std::exception& e) {
    std::cerr << "tvm-ffn-runner: " << e.what() << "\n";
    return 1;
  }
}
