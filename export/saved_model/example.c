/* An exported cascade without Python: TensorFlow's C API and nothing else.
 *
 * T=$(python -c "import tensorflow as tf; print(tf.sysconfig.get_lib())")
 * gcc -I$T/include export/saved_model/example.c -o example -L$T -l:libtensorflow_cc.so.2 \
 *     -l:libtensorflow_framework.so.2 -Wl,-rpath,$T
 * TF_CPP_MIN_LOG_LEVEL=3 ./example served/1 photo.jpg picture.ppm:30,20,110.5,240
 *
 * A .ppm (binary, 8 bits) goes to `serving_default` as pixels, anything else to `jpeg`
 * as it is. After a colon comes the person's box, x0,y0,x1,y1 in pixels; without one it
 * is the whole picture. Prints for each its name, whether it could be answered, and for
 * each joint x, y in pixels and the score. Errors, TensorFlow's too, are a line of the
 * program's own; the variable keeps TensorFlow's notices away, but for the one that no
 * CUDA drivers are there, which it prints before it reads the variable.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

enum { KEYPOINTS, SCORES, VALID, OUTPUTS };
static const char* const output_names[OUTPUTS] = {"keypoints", "scores", "valid"};

typedef struct {
  const unsigned char* at;
  const unsigned char* end;
} Bytes;

typedef struct {
  TF_Graph* graph;
  TF_Session* session;
  TF_Buffer* meta; /* Encoded MetaGraphDef, which names the signatures' tensors. */
} Model;

static void fail(const char* what, const char* why) {
  fprintf(stderr, "example: %s: %s\n", what, why);
  exit(1);
}

static void check(const TF_Status* status, const char* what) {
  if (TF_GetCode(status) != TF_OK) fail(what, TF_Message(status));
}

/* Protocol buffers, as far as a map of strings to messages needs them. */

static uint64_t varint(Bytes* bytes) {
  uint64_t value = 0;
  for (int shift = 0; bytes->at < bytes->end && shift < 64; shift += 7) {
    unsigned char byte = *bytes->at++;
    value |= (uint64_t)(byte & 127) << shift;
    if (byte < 128) return value;
  }
  fail("model", "its MetaGraphDef is damaged");
  return 0;
}

/* The next field of that number with content; false where there is none. */
static int next_field(Bytes* message, unsigned number, Bytes* content) {
  while (message->at < message->end) {
    uint64_t key = varint(message);
    uint64_t size = 0;
    switch (key & 7) {
      case 0: varint(message); break;
      case 1: size = 8; break;
      case 2: size = varint(message); break;
      case 5: size = 4; break;
      default: fail("model", "its MetaGraphDef is damaged");
    }
    if (size > (uint64_t)(message->end - message->at))
      fail("model", "its MetaGraphDef is damaged");
    content->at = message->at;
    content->end = message->at += size;
    if ((key & 7) == 2 && key >> 3 == number) return 1;
  }
  return 0;
}

/* The value under a key of the map that is the field of that number. */
static Bytes value_of(Bytes message, unsigned number, const char* key) {
  Bytes entry, name, value;
  while (next_field(&message, number, &entry)) {
    Bytes rest = entry;
    if (next_field(&rest, 1, &name) && strlen(key) == (size_t)(name.end - name.at) &&
        !memcmp(key, name.at, strlen(key)) && next_field(&entry, 2, &value))
      return value;
  }
  fail(key, "the model has no signature, input or output of this name");
  return message;
}

/* The tensor of a signature's input (field 1) or output (field 2). */
static TF_Output tensor(const Model* model, const char* signature, unsigned field,
                        const char* key) {
  Bytes meta = {model->meta->data, model->meta->data};
  meta.end += model->meta->length;
  Bytes info = value_of(value_of(meta, 5, signature), field, key), name;
  if (!next_field(&info, 1, &name)) fail(key, "its tensor has no name");
  char text[256];
  snprintf(text, sizeof text, "%.*s", (int)(name.end - name.at), (const char*)name.at);
  char* colon = strrchr(text, ':');
  if (colon) *colon = 0;
  TF_Output found = {TF_GraphOperationByName(model->graph, text),
                     colon ? atoi(colon + 1) : 0};
  if (!found.oper) fail(text, "the graph has no such operation");
  return found;
}

static Model load(const char* folder) {
  Model model = {TF_NewGraph(), NULL, TF_NewBuffer()};
  TF_Status* status = TF_NewStatus();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  model.session = TF_LoadSessionFromSavedModel(options, NULL, folder, tags, 1,
                                               model.graph, model.meta, status);
  check(status, folder);
  TF_DeleteSessionOptions(options);
  TF_DeleteStatus(status);
  return model;
}

static unsigned char* read_file(const char* path, size_t* size) {
  FILE* file = fopen(path, "rb");
  if (!file || fseek(file, 0, SEEK_END)) fail(path, "cannot be read");
  *size = (size_t)ftell(file);
  rewind(file);
  unsigned char* content = malloc(*size + 1);
  if (!content || fread(content, 1, *size, file) != *size)
    fail(path, "cannot be read");
  content[*size] = 0;
  fclose(file);
  return content;
}

/* [1, H, W, 3] uint8 from a binary PPM without comments. */
static TF_Tensor* pixels(const char* path, const unsigned char* content, size_t size) {
  int width, height, start = 0;
  sscanf((const char*)content, "P6 %d %d 255%n", &width, &height, &start);
  if (!start || width < 1 || height < 1 ||
      size != start + 1 + (size_t)height * width * 3)
    fail(path, "no binary PPM of 8 bits without comments");
  int64_t shape[] = {1, height, width, 3};
  TF_Tensor* images = TF_AllocateTensor(TF_UINT8, shape, 4, size - start - 1);
  memcpy(TF_TensorData(images), content + start + 1, size - start - 1);
  return images;
}

/* [1] string. */
static TF_Tensor* encoded(const unsigned char* content, size_t size) {
  int64_t shape[] = {1};
  TF_Tensor* strings = TF_AllocateTensor(TF_STRING, shape, 1, sizeof(TF_TString));
  TF_TString* string = TF_TensorData(strings);
  TF_StringInit(string);
  TF_StringCopy(string, (const char*)content, size);
  return strings;
}

/* [1, 4] float32 of what follows a path, which ends there; zeros: the whole picture. */
static TF_Tensor* box_after(char* path) {
  int64_t shape[] = {1, 4};
  TF_Tensor* boxes = TF_AllocateTensor(TF_FLOAT, shape, 2, 4 * sizeof(float));
  float* at = TF_TensorData(boxes);
  memset(at, 0, 4 * sizeof(float));
  char* colon = strrchr(path, ':');
  if (!colon) return boxes;
  char rest;
  if (sscanf(colon, ":%f,%f,%f,%f%c", at, at + 1, at + 2, at + 3, &rest) != 4)
    fail(path, "what follows the colon is no x0,y0,x1,y1");
  *colon = 0;
  return boxes;
}

/* Runs a signature on one picture and box. */
static void predict(const Model* model, const char* signature, const char* input,
                    TF_Tensor* picture, TF_Tensor* boxes, TF_Tensor* answers[OUTPUTS]) {
  TF_Output inputs[] = {tensor(model, signature, 1, input),
                        tensor(model, signature, 1, "boxes")};
  TF_Tensor* values[] = {picture, boxes};
  TF_Output outputs[OUTPUTS];
  for (int i = 0; i < OUTPUTS; i++)
    outputs[i] = tensor(model, signature, 2, output_names[i]);
  TF_Status* status = TF_NewStatus();
  TF_SessionRun(model->session, NULL, inputs, values, 2, outputs, answers, OUTPUTS,
                NULL, 0, NULL, status);
  check(status, signature);
  TF_DeleteStatus(status);
  TF_DeleteTensor(boxes);
  TF_DeleteTensor(picture);
}

int main(int count, char** arguments) {
  if (count < 3) fail("usage", "example MODEL PICTURE[:x0,y0,x1,y1]...");
  Model model = load(arguments[1]);
  for (int i = 2; i < count; i++) {
    TF_Tensor* boxes = box_after(arguments[i]);
    size_t size;
    unsigned char* content = read_file(arguments[i], &size);
    const char* dot = strrchr(arguments[i], '.');
    TF_Tensor* answers[OUTPUTS];
    if (dot && !strcmp(dot, ".ppm"))
      predict(&model, "serving_default", "images", pixels(arguments[i], content, size),
              boxes, answers);
    else
      predict(&model, "jpeg", "image_bytes", encoded(content, size), boxes, answers);
    free(content);
    const float* xy = TF_TensorData(answers[KEYPOINTS]);
    const float* scores = TF_TensorData(answers[SCORES]);
    const unsigned char* valid = TF_TensorData(answers[VALID]);
    printf("%s %s\n", arguments[i], *valid ? "valid" : "invalid");
    for (int64_t joint = 0; joint < TF_Dim(answers[SCORES], 1); joint++)
      printf("%.4f %.4f %.6f\n", xy[2 * joint], xy[2 * joint + 1], scores[joint]);
    for (int j = 0; j < OUTPUTS; j++) TF_DeleteTensor(answers[j]);
  }
  TF_Status* status = TF_NewStatus();
  TF_DeleteSession(model.session, status);
  check(status, "session");
  TF_DeleteStatus(status);
  TF_DeleteGraph(model.graph);
  TF_DeleteBuffer(model.meta);
  return 0;
}
